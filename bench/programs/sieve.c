// Primes below a million: bytes in memory, strides of every length.
#include <stdio.h>
#include <string.h>

#define END 1000000

static unsigned char composite[END];

int main(void) {
  int count = 0;
  memset(composite, 0, sizeof composite);
  for (int i = 2; i < END; i++) {
    if (composite[i])
      continue;
    count++;
    for (long j = (long)i * i; j < END; j += i)
      composite[j] = 1;
  }
  printf("%d\n", count);
  return 0;
}
