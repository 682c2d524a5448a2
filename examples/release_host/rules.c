/* What the host leaves to rules: they are compiled when it is built, and lie in its executable. */
#include <math.h>

/* The host has it. */
extern int discount(int customer);

/* The price in cents of `count` things that cost `each`, for a customer. */
int price(int customer, int count, int each) {
    double off = discount(customer) / 100.0;
    double bulk = 1.0 - fmin(0.2, log10(count) / 20);
    return (int)lround(count * each * bulk * (1.0 - off));
}
