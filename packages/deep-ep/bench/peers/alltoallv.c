// The job of dispatch and combine with MPI: rows packed by rank, MPI_Alltoallv, and back, summed in
// float32. Prints a line a turn: rows of rank 0, milliseconds of dispatch, of combine.
//   mpicc -O3 -march=native alltoallv.c -o alltoallv
//   mpirun -n 8 ./alltoallv TOKENS HIDDEN TOPK EXPERTS TURNS
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state;
static uint32_t draw(void) {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

// Which ranks get each token: distinct random experts.
static void choose(uint8_t *in_rank, int tokens, int topk, int experts, int ranks) {
  int *chosen = malloc(sizeof *chosen * (size_t)topk);
  memset(in_rank, 0, (size_t)tokens * (size_t)ranks);
  for (int t = 0; t < tokens; t++) {
    for (int k = 0; k < topk;) {
      int e = (int)(draw() % (uint32_t)experts), again = 0;
      for (int j = 0; j < k; j++) again |= chosen[j] == e;
      if (again) continue;
      chosen[k++] = e;
      in_rank[t * ranks + e / (experts / ranks)] = 1;
    }
  }
  free(chosen);
}

static float widen(uint16_t h) {
  uint32_t w = (uint32_t)h << 16;
  float f;
  memcpy(&f, &w, 4);
  return f;
}
static uint16_t narrow(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  return (uint16_t)((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, ranks;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  int tokens = atoi(argv[1]), hidden = atoi(argv[2]), topk = atoi(argv[3]);
  int experts = atoi(argv[4]), turns = atoi(argv[5]);
  size_t row = (size_t)hidden;
  state = (uint32_t)rank * 7919u + 1;
  uint8_t *in_rank = malloc((size_t)tokens * (size_t)ranks);
  choose(in_rank, tokens, topk, experts, ranks);
  int *send = calloc((size_t)ranks * 4, sizeof *send), *receive = send + ranks;
  int *send_at = receive + ranks, *receive_at = send_at + ranks;
  for (int t = 0; t < tokens; t++)
    for (int r = 0; r < ranks; r++) send[r] += in_rank[t * ranks + r];
  MPI_Alltoall(send, 1, MPI_INT, receive, 1, MPI_INT, MPI_COMM_WORLD);
  int sent = 0, received = 0;
  for (int r = 0; r < ranks; r++) {
    send_at[r] = sent;
    receive_at[r] = received;
    sent += send[r];
    received += receive[r];
  }
  // A row is one element, so that counts stay small.
  MPI_Datatype rows;
  MPI_Type_contiguous(hidden, MPI_UINT16_T, &rows);
  MPI_Type_commit(&rows);
  uint16_t *x = malloc(2 * row * (size_t)tokens), *packed = malloc(2 * row * (size_t)sent);
  uint16_t *got = malloc(2 * row * (size_t)received), *out = malloc(2 * row * (size_t)tokens);
  float *sum = malloc(4 * row);
  for (size_t i = 0; i < row * (size_t)tokens; i++) x[i] = 0x3f80;
  int *next = malloc(sizeof *next * (size_t)ranks);
  for (int turn = 0; turn <= turns; turn++) {
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    // The counts are exchanged each time, as dispatch does.
    MPI_Alltoall(send, 1, MPI_INT, receive, 1, MPI_INT, MPI_COMM_WORLD);
    memcpy(next, send_at, sizeof *next * (size_t)ranks);
    for (int t = 0; t < tokens; t++)
      for (int r = 0; r < ranks; r++)
        if (in_rank[t * ranks + r])
          memcpy(packed + row * (size_t)next[r]++, x + row * (size_t)t, 2 * row);
    MPI_Alltoallv(packed, send, send_at, rows, got, receive, receive_at, rows, MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
    double dispatched = MPI_Wtime();
    MPI_Alltoallv(got, receive, receive_at, rows, packed, send, send_at, rows, MPI_COMM_WORLD);
    memcpy(next, send_at, sizeof *next * (size_t)ranks);
    for (int t = 0; t < tokens; t++) {
      memset(sum, 0, 4 * row);
      for (int r = 0; r < ranks; r++) {
        if (!in_rank[t * ranks + r]) continue;
        const uint16_t *from = packed + row * (size_t)next[r]++;
        for (size_t i = 0; i < row; i++) sum[i] += widen(from[i]);
      }
      for (size_t i = 0; i < row; i++) out[row * (size_t)t + i] = narrow(sum[i]);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    double combined = MPI_Wtime();
    if (rank == 0 && turn > 0)
      printf("%d %.3f %.3f\n", received, (dispatched - start) * 1e3,
             (combined - dispatched) * 1e3);
    fflush(stdout);
  }
  MPI_Finalize();
  return 0;
}
