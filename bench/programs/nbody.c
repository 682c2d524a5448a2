// The outer planets and the sun, step by step: floating point, a square root, a nest of short loops.
#include <math.h>
#include <stdio.h>

#define BODIES 5

struct body {
  double place[3], speed[3], mass;
};

static double energy(const struct body *bodies) {
  double sum = 0;
  for (int i = 0; i < BODIES; i++) {
    double square = 0;
    for (int k = 0; k < 3; k++)
      square += bodies[i].speed[k] * bodies[i].speed[k];
    sum += 0.5 * bodies[i].mass * square;
    for (int j = i + 1; j < BODIES; j++) {
      double distance = 0;
      for (int k = 0; k < 3; k++) {
        double along = bodies[i].place[k] - bodies[j].place[k];
        distance += along * along;
      }
      sum -= bodies[i].mass * bodies[j].mass / sqrt(distance);
    }
  }
  return sum;
}

static void step(struct body *bodies, double time) {
  for (int i = 0; i < BODIES; i++)
    for (int j = i + 1; j < BODIES; j++) {
      double along[3], square = 0;
      for (int k = 0; k < 3; k++) {
        along[k] = bodies[i].place[k] - bodies[j].place[k];
        square += along[k] * along[k];
      }
      double force = time / (square * sqrt(square));
      for (int k = 0; k < 3; k++) {
        bodies[i].speed[k] -= along[k] * bodies[j].mass * force;
        bodies[j].speed[k] += along[k] * bodies[i].mass * force;
      }
    }
  for (int i = 0; i < BODIES; i++)
    for (int k = 0; k < 3; k++)
      bodies[i].place[k] += time * bodies[i].speed[k];
}

int main(void) {
  struct body bodies[BODIES] = {{{0, 0, 0}, {0, 0, 0}, 39.5}};
  for (int i = 1; i < BODIES; i++)
    bodies[i] = (struct body){{5.0 * i, 0.3 * i, -0.1 * i}, {0.1 / i, 2.8 / sqrt(i), 0.02 * i}, 0.04 / (i * i)};
  double before = energy(bodies);
  for (int i = 0; i < 20000; i++)
    step(bodies, 0.01);
  printf("%.9f %.9f\n", before, energy(bodies));
  return 0;
}
