// The largest singular value of an endless matrix, by multiplying: a small function called for every element, division.
#include <math.h>
#include <stdio.h>

#define SIZE 300

static double element(int row, int column) {
  return 1.0 / ((row + column) * (row + column + 1) / 2 + row + 1);
}

static void multiply(const double *vector, double *result, int transposed) {
  for (int i = 0; i < SIZE; i++) {
    double sum = 0;
    for (int j = 0; j < SIZE; j++)
      sum += (transposed ? element(j, i) : element(i, j)) * vector[j];
    result[i] = sum;
  }
}

static void multiply_twice(const double *vector, double *result) {
  double between[SIZE];
  multiply(vector, between, 0);
  multiply(between, result, 1);
}

int main(void) {
  double u[SIZE], v[SIZE], square = 0, mixed = 0;
  for (int i = 0; i < SIZE; i++)
    u[i] = 1;
  for (int i = 0; i < 10; i++) {
    multiply_twice(u, v);
    multiply_twice(v, u);
  }
  for (int i = 0; i < SIZE; i++) {
    mixed += u[i] * v[i];
    square += v[i] * v[i];
  }
  printf("%.9f\n", sqrt(mixed / square));
  return 0;
}
