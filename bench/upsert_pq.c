/* The limit of a flush to PostgreSQL: the same statement and the same binary arrays, from C.

   upsert_pq CONNINFO PLAYERS SQL

   Each line on the standard input is one flush of all players, sorted by session id; the answer is
   a line with its nanoseconds, from the making of the arrays to the end of the COMMIT.  Ends with
   its input, and after four minutes. */

#include <libpq-fe.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECONDS 240
#define HEADER 20
#define CELL 12
#define COLUMNS 4

enum { INT8 = 20, FLOAT8 = 701, INT8_ARRAY = 1016, FLOAT8_ARRAY = 1022 };

static PGconn *connection;

static void check(PGresult *result, const char *what) {
  ExecStatusType status = PQresultStatus(result);
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
    fprintf(stderr, "upsert_pq: %s: %s\n", what, PQerrorMessage(connection));
    exit(1);
  }
  PQclear(result);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void put32(char *to, uint32_t value) {
  value = __builtin_bswap32(value);
  memcpy(to, &value, sizeof value);
}

static void put64(char *to, uint64_t value) {
  value = __builtin_bswap64(value);
  memcpy(to, &value, sizeof value);
}

static void put_cells(char *array, uint32_t type, const uint64_t *values, int count) {
  put32(array, 1), put32(array + 4, 0), put32(array + 8, type);
  put32(array + 12, count), put32(array + 16, 1);
  for (int i = 0; i < count; i++) {
    put32(array + HEADER + i * CELL, 8);
    put64(array + HEADER + i * CELL + 4, values[i]);
  }
}

static uint64_t coordinate(void) {
  double value = 4096.0 * rand() / RAND_MAX;
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

int main(int argc, char **argv) {
  static const Oid types[COLUMNS] = {INT8_ARRAY, FLOAT8_ARRAY, FLOAT8_ARRAY, INT8_ARRAY};
  static const uint32_t elements[COLUMNS] = {INT8, FLOAT8, FLOAT8, INT8};
  static const int formats[COLUMNS] = {1, 1, 1, 1};
  char line[64];
  if (argc != 4) return 2;
  alarm(SECONDS);
  int count = atoi(argv[2]), lengths[COLUMNS];
  uint64_t *values[COLUMNS];
  char *arrays[COLUMNS];
  for (int column = 0; column < COLUMNS; column++) {
    values[column] = calloc(count, sizeof *values[column]);
    arrays[column] = malloc(lengths[column] = HEADER + count * CELL);
    if (!values[column] || !arrays[column]) return 1;
  }
  connection = PQconnectdb(argv[1]);
  check(PQprepare(connection, "save", argv[3], COLUMNS, types), "prepare");
  uint64_t updated_at = UINT64_C(1700000000000000);
  while (fgets(line, sizeof line, stdin)) {
    updated_at += 1000000;
    for (int i = 0; i < count; i++) {
      values[0][i] = i + 1, values[3][i] = updated_at;
      values[1][i] = coordinate(), values[2][i] = coordinate();
    }
    int64_t started = now();
    for (int column = 0; column < COLUMNS; column++)
      put_cells(arrays[column], elements[column], values[column], count);
    check(PQexec(connection, "BEGIN"), "BEGIN");
    check(PQexecPrepared(connection, "save", COLUMNS, (const char *const *)arrays, lengths, formats,
                         1),
          "save");
    check(PQexec(connection, "COMMIT"), "COMMIT");
    printf("%lld\n", (long long)(now() - started));
    fflush(stdout);
  }
  PQfinish(connection);
  return 0;
}
