/* The limit of a flush: the same statement on the same schema, prepared once, from C.

   upsert DATABASE SYNCHRONOUS PLAYERS ORDER SQL

   ORDER is "sorted" or "random".  Each line on the standard input is one flush of all players; the
   answer is a line with its nanoseconds, from BEGIN to COMMIT and the checkpoint where the log has
   grown to the size at which ours copies it.  Ends with its input, and after four minutes. */

#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECKPOINT_BYTES (16 << 20)
#define FRAME_BYTES (4096 + 24)
#define SECONDS 240

struct player {
  int64_t session_id;
  double x, y;
};

static sqlite3 *database;
static int log_pages;

static void check(int status, const char *what) {
  if (status == SQLITE_OK || status == SQLITE_DONE || status == SQLITE_ROW) return;
  fprintf(stderr, "upsert: %s: %s\n", what, sqlite3_errmsg(database));
  exit(1);
}

static void run(const char *sql) { check(sqlite3_exec(database, sql, 0, 0, 0), sql); }

static int committed(void *unused, sqlite3 *which, const char *name, int pages) {
  (void)unused, (void)which, (void)name;
  log_pages = pages;
  return SQLITE_OK;
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static double coordinate(void) { return 4096.0 * rand() / RAND_MAX; }

static void shuffle(struct player *players, int count) {
  for (int last = count - 1; last > 0; last--) {
    int other = (int)(rand() / (RAND_MAX + 1.0) * (last + 1));
    struct player kept = players[last];
    players[last] = players[other];
    players[other] = kept;
  }
}

static void flush(sqlite3_stmt *upsert, const struct player *players, int count, int64_t at) {
  run("BEGIN IMMEDIATE");
  for (int i = 0; i < count; i++) {
    sqlite3_bind_int64(upsert, 1, players[i].session_id);
    sqlite3_bind_double(upsert, 2, players[i].x);
    sqlite3_bind_double(upsert, 3, players[i].y);
    sqlite3_bind_int64(upsert, 4, at);
    check(sqlite3_step(upsert), "step");
    check(sqlite3_reset(upsert), "reset");
  }
  run("COMMIT");
  if ((int64_t)log_pages * FRAME_BYTES >= CHECKPOINT_BYTES)
    check(sqlite3_wal_checkpoint_v2(database, 0, SQLITE_CHECKPOINT_PASSIVE, 0, 0), "checkpoint");
}

int main(int argc, char **argv) {
  char pragma[64], line[64];
  if (argc != 6) return 2;
  alarm(SECONDS);
  int count = atoi(argv[3]);
  struct player *players = calloc(count, sizeof *players);
  if (!players) return 1;
  for (int i = 0; i < count; i++) players[i].session_id = i + 1;
  if (!strcmp(argv[4], "random")) shuffle(players, count);
  check(sqlite3_open(argv[1], &database), "open");
  snprintf(pragma, sizeof pragma, "PRAGMA synchronous = %s", argv[2]);
  run(pragma);
  sqlite3_wal_hook(database, committed, 0);
  sqlite3_stmt *upsert;
  check(sqlite3_prepare_v2(database, argv[5], -1, &upsert, 0), "prepare");
  int64_t updated_at = INT64_C(1700000000000000);
  while (fgets(line, sizeof line, stdin)) {
    for (int i = 0; i < count; i++) players[i].x = coordinate(), players[i].y = coordinate();
    updated_at += 1000000;
    int64_t started = now();
    flush(upsert, players, count, updated_at);
    printf("%lld\n", (long long)(now() - started));
    fflush(stdout);
  }
  sqlite3_finalize(upsert);
  sqlite3_close(database);
  return 0;
}
