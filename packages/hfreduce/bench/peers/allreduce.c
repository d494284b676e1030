// MPI_Allreduce of floats as the peer of bench/allreduce.bench.ts: prints the time of each call in
// microseconds, the slowest rank's, after a barrier.
//   mpicc -O3 allreduce.c -o allreduce && mpirun -n 4 ./allreduce BYTES REPEATS IN_PLACE
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, size;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  long bytes = argc > 1 ? atol(argv[1]) : 64 << 20;
  int repeats = argc > 2 ? atoi(argv[2]) : 5, in_place = argc > 3 ? atoi(argv[3]) : 1;
  int count = (int)(bytes / 4);
  float *x = malloc((size_t)bytes + 64), *y = malloc((size_t)bytes + 64);
  for (int i = 0; i < count; i++) x[i] = (float)(rank + i % 7), y[i] = 0;
  for (int r = -1; r < repeats; r++) {
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    if (in_place) MPI_Allreduce(MPI_IN_PLACE, x, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    else MPI_Allreduce(x, y, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    double us = (MPI_Wtime() - start) * 1e6, slowest = 0;
    MPI_Reduce(&us, &slowest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (rank == 0 && r >= 0) printf("%.2f\n", slowest);
  }
  MPI_Finalize();
  return 0;
}
