/** The last ten minutes, in three charts that share one time. */

import uPlot from "./uplot/uPlot.esm.js";
import { clock, latency, rate, short } from "./format.js";
import { colours, onTheme } from "./theme.js";

const SPAN = 600;
/** The least seconds that are shown, while the server is young. */
const LEAST = 60;
const CHARTS = [
  { name: "latency", column: "commit_seconds", scale: 1000, show: latency, tick: latency },
  { name: "rows", column: "commit_rows", scale: 1, show: rate, tick: short },
  { name: "moves", column: "moves", scale: 1, show: rate, tick: short },
];

export class Charts {
  constructor(root) {
    this.rows = [];
    this.columns = {};
    this.recolour();
    onTheme(() => {
      this.recolour();
      for (const chart of this.charts) chart.plot.redraw(false);
    });
    const sync = uPlot.sync("time");
    this.charts = CHARTS.map((spec) => this.#make(spec, root, sync));
  }

  recolour() {
    this.colours = colours("saved", "fill", "grid", "muted");
  }

  #make(spec, root, sync) {
    const figure = root.querySelector(`[data-chart="${spec.name}"]`);
    const place = figure.querySelector(".plot");
    const now = figure.querySelector(".now");
    const chart = { ...spec, now, value: "" };
    const axis = { stroke: () => this.colours.muted, font: "11px system-ui, sans-serif" };
    const grid = { stroke: () => this.colours.grid, width: 1 };
    const none = { show: false };
    chart.plot = new uPlot(
      {
        width: place.clientWidth || 300,
        height: place.clientHeight || 100,
        padding: [8, 8, 0, 0],
        legend: none,
        cursor: {
          sync: { key: sync.key, setSeries: false },
          drag: { x: false, y: false },
          points: { size: 7 },
          y: false,
        },
        scales: { x: { time: true, range: () => this.#range() }, y: { range: fromZero } },
        axes: [
          { ...axis, grid, ticks: none, size: 24, gap: 4, space: 76, values: hours },
          {
            ...axis,
            grid,
            ticks: none,
            size: 52,
            gap: 6,
            space: 32,
            values: (_, splits) => splits.map(spec.tick),
          },
        ],
        series: [
          {},
          {
            stroke: () => this.colours.saved,
            fill: () => this.colours.fill,
            width: 1.5,
            spanGaps: true,
            // A line needs two points: the first ones are shown by themselves.
            points: { show: (plot) => known(plot.data[1]) < 3, size: 5 },
          },
        ],
        hooks: { setCursor: [(plot) => this.#pointed(chart, plot)] },
      },
      [[], []],
      place,
    );
    new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = place;
      if (width && height) chart.plot.setSize({ width, height });
    }).observe(place);
    return chart;
  }

  /** Begin anew with the history of a server. */
  start({ columns, rows }) {
    this.columns = Object.fromEntries(columns.map((name, at) => [name, at]));
    this.rows = rows;
    this.#show();
  }

  add(rows) {
    if (!rows.length) return;
    this.rows.push(...rows);
    this.#show();
  }

  #show() {
    const { at } = this.columns;
    const last = this.rows.at(-1)?.[at] ?? 0;
    this.rows = this.rows.filter((row) => row[at] > last - SPAN);
    const times = this.rows.map((row) => row[at]);
    for (const chart of this.charts) {
      const column = this.columns[chart.column];
      const values = this.rows.map((row) => row[column]).map((value) => value && value * chart.scale);
      chart.plot.setData([times, values]);
      const newest = values.findLast((value) => value !== null && value !== undefined);
      chart.value = newest === undefined ? "none yet" : chart.show(newest);
      if (chart.plot.cursor.left < 0 || chart.plot.cursor.left === undefined) {
        chart.now.textContent = chart.value;
      }
    }
  }

  /** While the pointer is on a chart, each tells its value at that time. */
  #pointed(chart, plot) {
    const index = plot.cursor.idx;
    const isOn = plot.cursor.left >= 0 && index !== null && index !== undefined;
    const value = isOn ? plot.data[1][index] : undefined;
    if (!isOn) chart.now.textContent = chart.value;
    else {
      const shown = value === null || value === undefined ? "none" : chart.show(value);
      chart.now.textContent = `${shown} at ${clock(plot.data[0][index])}`;
    }
  }

  #range() {
    const last = this.rows.at(-1)?.[this.columns.at] ?? Date.now() / 1000;
    const first = this.rows[0]?.[this.columns.at] ?? last;
    return [Math.max(last - SPAN, Math.min(first, last - LEAST)), last];
  }
}

function fromZero(_, __, most) {
  return [0, most > 0 ? most * 1.15 : 1];
}

function known(values) {
  return values.reduce((number, value) => number + Number(value !== null && value !== undefined), 0);
}

function hours(_, splits) {
  const isFine = splits.length > 1 && splits[1] - splits[0] < 60;
  return splits.map((at) => clock(at).slice(0, isFine ? 8 : 5));
}
