//! What a first call must leave as it was: arguments of every kind and width, the frames around it, and small stacks; and
//! what stands for a function, which is one address.

use super::same;

#[test]
fn arguments_of_every_kind() {
    let text = r#"
#include <immintrin.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <complex.h>
struct big { char bytes[70000]; };
struct pair { double a; long b; };
struct floats { float a, b, c; };
struct packed { char c; int i; } __attribute__((packed));
#define AVX __attribute__((target("avx2"), noinline))
#define AVX512 __attribute__((target("avx512f"), noinline))
AVX static __m256d wide(__m256d a, __m256d b, __m256d c, __m256d d, __m256d e, __m256d f, __m256d g, __m256d h) { return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h; }
AVX static __m256i integers(__m256i a, long x, __m256i b) { return a * x + b; }
AVX static void of_256(void) {
  __m256d v[8];
  for (int i = 0; i < 8; i++) v[i] = (__m256d){i, i + .25, i * 3, i * i};
  __m256d r = wide(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
  __m256i s = integers((__m256i){1, 2, 3, 4}, 10, (__m256i){5, 6, 7, 8});
  printf("%g %g %g %g\n", r[0], r[1], r[2], r[3]);
  printf("%lld %lld %lld %lld\n", s[0], s[1], s[2], s[3]);
}
AVX512 static __m512d wider(__m512d a, __m512d b, __m512d c, __m512d d, __m512d e, __m512d f, __m512d g, __m512d h) { return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h; }
AVX512 static void of_512(void) {
  __m512d v[8];
  for (int i = 0; i < 8; i++) for (int j = 0; j < 8; j++) v[i][j] = i * 10 + j;
  __m512d r = wider(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
  for (int j = 0; j < 8; j++) printf("%g ", r[j]);
  puts("");
}
static double va_sum(int n, va_list l) { double s = 0; while (n--) s = 2 * s + va_arg(l, double); return s; }
static double sum(int n, ...) { va_list l; va_start(l, n); double s = va_sum(n, l); va_end(l); return s; }
static long mixed(const char *kinds, ...) {
  va_list l, copy;
  va_start(l, kinds);
  va_copy(copy, l);
  long s = 0;
  for (const char *k = kinds; *k; k++) switch (*k) {
    case 'i': s = s * 3 + va_arg(l, int); break;
    case 'l': s = s * 3 + va_arg(l, long); break;
    case 'd': s = s * 3 + (long)va_arg(l, double); break;
    case 'x': s = s * 3 + (long)va_arg(l, long double); break;
    case 'p': { struct pair p = va_arg(l, struct pair); s = s * 3 + (long)p.a + p.b; break; }
    case 'b': { struct big b = va_arg(l, struct big); s = s * 3 + b.bytes[69999]; break; }
  }
  s += va_arg(copy, int);
  va_end(copy);
  va_end(l);
  return s;
}
static int large(struct big a, int x, struct big b) { return a.bytes[0] + 10 * x + 100 * b.bytes[69999]; }
static struct big grow(struct big a) { memset(a.bytes, a.bytes[0] + 1, sizeof a.bytes); return a; }
static struct pair swap(struct pair p) { return (struct pair){p.b, p.a}; }
static struct floats turn(struct floats f) { return (struct floats){f.b, f.c, f.a}; }
static int packed(struct packed p, struct packed *q) { return p.c + p.i + q->i; }
static long double extended(long double a, int b, long double c) { return a * b - c; }
static double complex twist(double complex z, float complex w) { return z * I + w; }
static __int128 huge(__int128 a, long b, __int128 c) { return a * b + c; }
static long many(long a, long b, long c, long d, long e, long f, long g, long h, char i, short j) { return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j; }
static _Bool flag(_Bool b, signed char c, unsigned short s) { return b && c < 0 && s > 60000; }
static unsigned char *down(unsigned char *p, double x, unsigned char *q) { *p = (unsigned char)x; return p < q ? p : q; }
int main(void) {
  if (__builtin_cpu_supports("avx2")) of_256();
  if (__builtin_cpu_supports("avx512f")) of_512();
  printf("%g %g\n", sum(9, 1., 2., 3., 4., 5., 6., 7., 8., 9.), sum(0));
  struct big b = {{3}};
  b.bytes[69999] = 7;
  printf("%ld\n", mixed("ildxpbi", 1, 2L, 3.5, 4.5L, (struct pair){5.5, 6}, b, 8));
  printf("%d\n", large(b, 5, b));
  printf("%d\n", grow(grow(b)).bytes[69998]);
  struct pair p = swap((struct pair){1.5, 8});
  struct floats f = turn((struct floats){1, 2, 3});
  struct packed k = {1, 200};
  printf("%g %ld %g %g %g %d\n", p.a, p.b, f.a, f.b, f.c, packed(k, &k));
  double complex z = twist(1 + 2 * I, 3 + 4 * I);
  printf("%Lg %g %g %ld\n", extended(1.5L, 4, .25L), creal(z), cimag(z), (long)(huge((__int128)1 << 90, 5, 77) >> 80));
  printf("%ld %d\n", many(1, 2, 3, 4, 5, 6, 7, 8, -9, -10), flag(1, -1, 65000));
  unsigned char c[2];
  printf("%d %d\n", down(c, 200.7, c + 1) == c, c[0]);
}
"#;
    same("arguments.c", text);
}

#[test]
fn frames_around_a_first_call() {
    let text = r#"
#include <alloca.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int odd(unsigned n);
static int even(unsigned n) { return n ? odd(n - 1) : 1; }
static int odd(unsigned n) { return n ? even(n - 1) : 0; }
static int (*volatile through)(unsigned) = even;
/* Every level is a function of its own, with the others' frames below it. */
#define LEVEL(n, next) static long level##n(long x, int *sum) { volatile char frame[500]; memset((void *)frame, n, sizeof frame); long r = next(x + n, sum); *sum += frame[x % 500] == n; return r; }
static jmp_buf back;
static long bottom(long x, int *sum) { if (x < 0) longjmp(back, 5); return x; }
LEVEL(9, bottom) LEVEL(8, level9) LEVEL(7, level8) LEVEL(6, level7) LEVEL(5, level6) LEVEL(4, level5) LEVEL(3, level4) LEVEL(2, level3) LEVEL(1, level2)
static int fresh(int x) { return x * 3; }
static int after_jump(int x) { return fresh(x) + 1; }
static void thrower(int n) { char *p = alloca(n * 100); memset(p, n, n * 100); if (n == 0) longjmp(back, 9); thrower(n - 1); }
static int on_alloca(int n) {
  char *p = alloca(n);
  memset(p, 1, n);
  int variable[n / 100];
  for (int i = 0; i < n / 100; i++) variable[i] = fresh(i);
  int s = 0;
  for (int i = 0; i < n; i++) s += p[i];
  return s + variable[n / 100 - 1];
}
static int ackermann(int m, int n) { return m ? ackermann(m - 1, n ? ackermann(m, n - 1) : 1) : n + 1; }
static int compare(const void *a, const void *b) { return *(int *)a - *(int *)b; }
static int aligned(int x) { _Alignas(64) char p[64]; return (int)((unsigned long)p % 64) + x; }
static const char *where(void) { return __builtin_return_address(0); }
int main(void) {
  int sum = 0;
  printf("%d %d\n", through(20001), even(4));
  printf("%ld %d\n", level1(5, &sum), sum);
  volatile int kept = 1;
  int got = setjmp(back);
  if (got == 0) { kept = 2; level1(-100, &sum); }
  printf("%d %d %d\n", got, kept, after_jump(7));
  got = setjmp(back);
  if (got == 0) thrower(50);
  printf("%d %d\n", got, on_alloca(50000));
  printf("%d %d\n", ackermann(2, 9), aligned(3));
  int numbers[500];
  for (int i = 0; i < 500; i++) numbers[i] = (i * 7919) % 503;
  qsort(numbers, 500, sizeof *numbers, compare);
  int key = 250, *found = bsearch(&key, numbers, 500, sizeof key, compare);
  printf("%d %d %d\n", numbers[0], numbers[499], found && *found == 250);
  printf("%d\n", where() != 0);
}
"#;
    same("frames.c", text);
}

#[test]
fn what_stands_for_a_function() {
    let text = r#"
#include <stdio.h>
#include <string.h>
int one(int x) { return x + 1; }
static int two(int x) { return x + 2; }
int alias(int x) __attribute__((alias("one")));
__attribute__((weak)) int preferred(int x) { return x * 10; }
extern int nobody(int) __attribute__((weak));
static int fast(int x) { return x * 100; }
static int (*choose(void))(int) { return fast; }
int chosen(int x) __attribute__((ifunc("choose")));
static int (*const table[])(int) = {one, two, alias, preferred, fast};
int (*variable)(int) = two;
struct methods { const char *name; int (*call)(int); } methods[] = {{"one", one}, {"two", two}, {"three", fast}};
static int dispatch(const unsigned char *code) {
  static const void *const labels[] = {&&push, &&add, &&twice, &&end};
  int stack[8], n = 0;
  goto *labels[*code++];
push: stack[n++] = *code++; goto *labels[*code++];
add: n--; stack[n - 1] += stack[n]; goto *labels[*code++];
twice: stack[n - 1] = one(stack[n - 1]) * 2; goto *labels[*code++];
end: return stack[0];
}
static int cases(int x) {
  switch (x) { case 0: return 5; case 1: return one(x); case 2: return 9; case 3: return 100; case 4: return -1; case 5: return 44; case 6: return two(x); default: return 0; }
}
static int counted(void) { static int calls; return ++calls; }
static const char *said(void) { static const char *const words[] = {"a", "b"}; static int at; return words[at++ & 1]; }
int main(void) {
  int (*volatile p)(int) = one;
  int (*volatile q)(int) = alias;
  printf("%d %d %d\n", p == table[0], p == q, p == methods[0].call);
  int before = (int)(unsigned long)p;
  one(1);
  printf("%d\n", before == (int)(unsigned long)one);
  for (int i = 0; i < 5; i++) printf("%d ", table[i](3));
  printf("%d %d %d\n", variable(5), chosen(2), nobody ? 1 : 0);
  for (int i = 0; i < 3; i++) printf("%s %d ", methods[i].name, methods[i].call(i));
  printf("%d\n", dispatch((const unsigned char[]){0, 5, 0, 6, 1, 2, 3}));
  for (int i = -1; i < 8; i++) printf("%d ", cases(i));
  counted(); counted();
  printf("%d %s%s%s\n", counted(), said(), said(), said());
}
"#;
    same("stands.c", text);
}

#[test]
fn cpp_as_it_is() {
    let text = r#"
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <variant>
#include <vector>
struct Shape { virtual ~Shape() { std::puts("gone"); } virtual double area() const = 0; virtual std::string name() const { return "shape"; } };
struct Other { virtual ~Other() = default; virtual int other() { return 1; } };
struct Square : Shape { double a; explicit Square(double x) : a(x) {} double area() const override { return a * a; } };
struct Both final : Square, virtual Other { using Square::Square; int other() override { return 2; } std::string name() const override { return "both"; } };
struct Guard { const char *what; ~Guard() { std::printf("~%s\n", what); } };
template <class T> T twice(T x) { return x + x; }
template <int N> struct Fib { static int value() { return Fib<N - 1>::value() + Fib<N - 2>::value(); } };
template <> struct Fib<1> { static int value() { return 1; } };
template <> struct Fib<0> { static int value() { return 0; } };
static void fall(int n) { Guard g{"fall"}; if (n == 0) throw std::out_of_range("bottom"); fall(n - 1); }
static int filtered(int n) { try { fall(n); } catch (const std::logic_error &e) { Guard g{e.what()}; throw; } return 0; }
inline int counter() { static int n = [] { std::puts("once"); return 10; }(); return ++n; }
thread_local std::string mine = "thread's";
static Guard global{"global"};
static int throw_it(int n) { throw n; }
struct Throws { int x; Throws() try : x(throw_it(3)) {} catch (int n) { throw n + 1; } };
int main() {
  Guard g{"main"};
  try { filtered(3); } catch (const std::exception &e) { std::printf("%s %s\n", typeid(e).name(), e.what()); }
  try { Throws t; } catch (int n) { std::printf("thrown %d\n", n); }
  std::unique_ptr<Shape> shape = std::make_unique<Both>(3.0);
  std::printf("%g %s %d\n", shape->area(), shape->name().c_str(), dynamic_cast<Other *>(shape.get())->other());
  std::printf("%d %s\n", dynamic_cast<Both *>(shape.get()) != nullptr, typeid(*shape).name());
  double (Shape::*method)() const = &Shape::area;
  std::printf("%g\n", (shape.get()->*method)());
  std::printf("%d %s %d\n", twice(4), twice(std::string("ab")).c_str(), Fib<12>::value());
  std::vector<std::string> words{"pear", "apple", "fig"};
  std::sort(words.begin(), words.end(), [](auto &a, auto &b) { return a.size() < b.size(); });
  std::map<std::string, std::function<int(int)>> calls;
  int captured = 7;
  calls["add"] = [captured](int x) { return x + captured; };
  calls["count"] = [](int) { return counter(); };
  for (auto &[name, call] : calls) std::printf("%s %d %d\n", name.c_str(), call(1), call(2));
  std::variant<int, std::string> v = std::string("variant");
  std::visit([](auto &x) { std::ostringstream s; s << x << '!' << sizeof x; std::puts(s.str().c_str()); }, v);
  for (auto &w : words) std::printf("%s ", w.c_str());
  mine += " own";
  std::puts(mine.c_str());
  try { std::rethrow_exception(std::make_exception_ptr(5L)); } catch (long l) { std::printf("%ld\n", l); }
}
"#;
    same("cpp.cpp", text);
}
