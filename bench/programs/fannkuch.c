// Pancakes: of all permutations, how often the first so many are turned over until the first one is 1. Small arrays of
// integers, swaps, branches that cannot be foreseen.
#include <stdio.h>

#define MOST 9

static int turns(const int *pancakes) {
  int pile[MOST], count = 0;
  for (int i = 0; i < MOST; i++)
    pile[i] = pancakes[i];
  while (pile[0] != 0) {
    for (int low = 0, high = pile[0]; low < high; low++, high--) {
      int other = pile[low];
      pile[low] = pile[high];
      pile[high] = other;
    }
    count++;
  }
  return count;
}

int main(void) {
  int pancakes[MOST], rotated[MOST + 1] = {0}, most = 0, sum = 0, sign = 1, size = 1;
  for (int i = 0; i < MOST; i++)
    pancakes[i] = i;
  while (size < MOST) {
    int count = turns(pancakes);
    most = count > most ? count : most;
    sum += sign * count;
    sign = -sign;
    // The next permutation: the first two, then the first three once these are through, and so on.
    for (size = 1; size < MOST; size++) {
      int first = pancakes[0];
      for (int i = 0; i < size; i++)
        pancakes[i] = pancakes[i + 1];
      pancakes[size] = first;
      if (++rotated[size] <= size)
        break;
      rotated[size] = 0;
    }
  }
  printf("%d %d\n", sum, most);
  return 0;
}
