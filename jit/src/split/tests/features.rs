//! Small programs, one a feature of what clang makes.

use super::support::{Cut, Program};

const CUTS: [Cut; 4] = [Cut::Single, Cut::Plan, Cut::Stubs, Cut::Lazy];

#[track_caller]
fn check(name: &str, text: &str) {
    check_with(name, text, &[]);
}

#[track_caller]
fn check_with(name: &str, text: &str, more: &[&str]) {
    let program = Program::small(name, text);
    for flags in [&["-O0"][..], &["-O2"], &["-O1", "-g"], &["-O0", "-g"]] {
        program.compare(&[flags, more].concat(), &CUTS);
    }
}

#[test]
fn label_addresses_and_tables_of_them() {
    check(
        "goto.c",
        r#"#include <stdio.h>
static int run(const unsigned char *p) {
  static const void *const t[] = {&&add, &&mul, &&end};
  static int calls;
  calls++;
  int a = 1;
  goto *t[*p++];
add: a += 3; goto *t[*p++];
mul: a *= 5; goto *t[*p++];
end: return a + calls;
}
static int direct(int n) { void *where = n ? &&yes : &&no; goto *where; yes: return 1; no: return 2; }
int offsets(int n) { static const int d[] = {&&a - &&a, &&b - &&a, &&c - &&a}; goto *(&&a + d[n]); a: return 10; b: return 20; c: return 30; }
int main(void) {
  for (int i = 0; i < 2; i++) printf("%d\n", run((const unsigned char *)"\0\1\0\2"));
  printf("%d %d %d\n", direct(0) + direct(1), offsets(1), offsets(2));
  return 0;
}
"#,
    );
}

#[test]
fn one_address_a_function() {
    check(
        "identity.c",
        r#"#include <stdio.h>
typedef void *fn(void);
void *f(void) { return (void *)f; }
void *g(void) { return (void *)f; }
static void *h(void) { return (void *)h; }
static fn *table[] = {f, g, h};
int main(void) {
  printf("%d %d %d %d\n", f() == (void *)f, g() == (void *)table[0], table[1]() == (void *)&f, h() == (void *)table[2]);
  return 0;
}
"#,
    );
}

#[test]
fn state_constructors_aliases_ifuncs_and_tls() {
    check(
        "state.c",
        r#"#include <stdio.h>
static int next(void) { static int n; return ++n; } int a(void) { return next(); } int b(void) { return next() * 10; } static const char *s(void) { return "same"; }
const char *p(void) { return s(); } const char *q(void) { return s(); }
__attribute__((constructor(101))) static void c1(void) { puts("first"); } __attribute__((constructor(102))) static void c2(void) { puts("second"); } __attribute__((destructor)) static void d1(void) { puts("last"); }
static int weak_default(void) { return 4; } int w(void) __attribute__((weak, alias("weak_impl"))); int weak_impl(void) { return weak_default(); }
static int (*pick(void))(void) { return a; } int chosen(void) __attribute__((ifunc("pick")));
int common_one[3]; __attribute__((weak)) int weak_value = 8; extern int absent(void) __attribute__((weak)); extern int t_alias __attribute__((alias("data_base"))); int data_base = 12;
int w2(void) __attribute__((alias("weak_impl")));
__thread int t = 6; static __thread int u = 5;
int main(void) { printf("%d %d %d %d %d\n", common_one[1], weak_value, absent != 0, t_alias, w2() == w()); printf("%d %d %d %d %d %d %d\n", a(), b(), a(), p() == q(), w(), chosen(), ++t + ++u); return 0; }
"#,
    );
}

#[test]
fn exceptions_templates_and_static_locals() {
    check(
        "cleanup.cpp",
        r#"#include <cstdio>
#include <string>
#include <vector>
struct G { const char *n; ~G() { std::printf("~%s\n", n); } };
static int depth(int n) { G g{"g"}; if (n == 0) throw std::string("deep"); return depth(n - 1) + 1; }
template <class T> T sum(const std::vector<T> &v) { T s{}; for (auto x : v) s += x; return s; }
int main() { try { depth(3); } catch (const std::string &s) { std::puts(s.c_str()); } auto f = [k = 3](auto x) { return x * k; }; std::printf("%d %g %d\n", sum<int>({1, 2, 3}), sum<double>({.5, .25}), f(7)); }
"#,
    );
}

#[test]
fn inline_functions_vtables_and_guards() {
    check(
        "classes.cpp",
        r#"#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>
struct Shape { virtual ~Shape() = default; virtual double area() const = 0; virtual int kind() const { return 1; } };
template <class T> struct Square : Shape { T side; explicit Square(T s) : side(s) {} double area() const override { return double(side) * side; } static int made; };
template <class T> int Square<T>::made = 0;
inline int instances = std::printf("inline variable\n");
struct Loud { int n; Loud(int n) : n(n) { std::printf("+%d\n", n); } ~Loud() { std::printf("-%d\n", n); } };
inline Loud &loud() { static Loud one(7); return one; }
static Loud global(1);
thread_local Loud of_thread(2);
struct Left { virtual int left() { return 1; } int l = 1; }; struct Right { virtual int right() { return 2; } int r = 2; };
struct Both : Left, virtual Right { int right() override { return r + l + 40; } ~Both() { std::puts("both gone"); } };
int thrower(int n) noexcept(false) { Loud guard(n); if (n > 3) throw std::out_of_range("too far"); return thrower(n + 1); }
int main() {
  std::vector<std::unique_ptr<Shape>> shapes;
  for (int i = 1; i < 4; i++) { shapes.push_back(std::make_unique<Square<int>>(i)); Square<int>::made++; }
  double sum = 0;
  for (auto &s : shapes) sum += s->area() + s->kind();
  std::map<std::string, int> count;
  for (auto word : {"a", "b", "a"}) count[word]++;
  try { thrower(2); } catch (const std::exception &e) { std::printf("%s\n", e.what()); }
  Both both; Right *right = &both;
  std::printf("%g %d %d %d %d %d %s %d\n", sum, Square<int>::made, instances > 0, count["a"], loud().n + loud().n, right->right(), typeid(*shapes[0]).name(), of_thread.n + global.n);
  return dynamic_cast<Square<float> *>(shapes[0].get()) != nullptr;
}
"#,
    );
}

#[test]
fn jumps_varargs_and_large_arguments() {
    check(
        "jump.c",
        r#"#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
static jmp_buf j; static void leap(int n) { longjmp(j, n); } struct big { int v[64]; }; static int total(struct big b) { int s = 0; for (int i = 0; i < 64; i++) s += b.v[i]; return s; }
static int vsum(int n, ...) { va_list l; va_start(l, n); int s = 0; while (n--) s += va_arg(l, int); va_end(l); return s; }
static int even(int); static int odd(int n) { return n ? even(n - 1) : 0; } static int even(int n) { return n ? odd(n - 1) : 1; }
int main(void) { volatile int k = 0; int r = setjmp(j); if (!r) { k = 1; leap(9); } struct big b; for (int i = 0; i < 64; i++) b.v[i] = i; long double x = 1.5L; __int128 q = (__int128)1 << 100; printf("%d %d %d %d %d %.2Lf %d\n", r, k, total(b), vsum(3, 1, 2, 3), even(1000), x * 3, (int)(q >> 98)); __asm__ volatile("nop"); return 0; }
"#,
    );
}

#[test]
fn guaranteed_tail_calls() {
    check(
        "tail.c",
        r#"#include <stdio.h>
typedef long op(const unsigned char *p, long acc, long n);
static op step, twice, stop; static op *const table[] = {step, twice, stop};
#define NEXT __attribute__((musttail)) return table[*p](p, acc, n)
static long step(const unsigned char *p, long acc, long n) { acc += 3; if (n-- <= 0) p++; NEXT; }
static long twice(const unsigned char *p, long acc, long n) { acc = (acc * 2) & 0xffffff; p++; NEXT; }
static long stop(const unsigned char *p, long acc, long n) { return acc + n; }
int main(void) { static const unsigned char code[] = {0, 1, 0, 2}; printf("%ld\n", table[0](code, 1, 3000000)); return 0; }
"#,
    );
}

#[test]
fn assembly() {
    check(
        "asm.c",
        r#"#include <stdio.h>
__asm__(".text\n.globl from_asm\n.type from_asm,@function\nfrom_asm: lea 7(%rdi,%rdi), %eax\n ret\n.size from_asm,.-from_asm\n.section .rodata\nasm_text: .asciz \"asm text\"\n.globl asm_pointer\n.data\n.p2align 3\nasm_pointer: .quad asm_text\n.text\n");
int from_asm(int); extern const char *asm_pointer;
__attribute__((naked)) static int naked(void) { __asm__("mov $33, %eax; ret"); }
static int helper(int x) { return x + 1; } __attribute__((used)) static int (*const kept)(int) = helper;
__attribute__((visibility("hidden"))) int hidden_value = 4; __attribute__((visibility("hidden"), noinline)) int hidden(int x) { return x * hidden_value; } int (*hidden_address(void))(int) { return hidden; }
extern const char asm_text[];
__attribute__((used)) static int only_asm(int x) { return x * 3; }
__attribute__((used)) static long asm_data = 77;
__asm__(".text\n.globl through_asm\nthrough_asm: jmp only_asm\n.globl read_asm\nread_asm: mov asm_data(%rip), %rax\n ret\n");
int through_asm(int); long read_asm(void);
int in_body(int x) { __asm__("call only_asm" : "+D"(x), "=a"(x) : : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory"); return x; }
int main(void) { printf("%s %d %ld\n", asm_text, through_asm(5), read_asm()); printf("%d %s %d %d %d %d\n", from_asm(4), asm_pointer, naked(), kept(1), hidden(5), hidden_address() == hidden); return 0; }
"#,
    );
}

#[test]
fn threads_and_their_variables() {
    check(
        "threads.cpp",
        r#"#include <cstdio>
#include <thread>
#include <vector>
static thread_local int mine = 5;
__attribute__((visibility("hidden"))) thread_local int hidden_one = 6;
thread_local std::vector<int> list;
static int &own() { static thread_local int inner = 9; return ++inner; }
extern "C" int *address() { return &mine; }
int work(int n) { mine += n; hidden_one += mine; list.push_back(n); own(); return *address() + hidden_one + own() + int(list.size()); }
int main() {
  int results[3];
  for (int i = 0; i < 3; i++) { std::thread t([i, &results] { results[i] = work(i) + work(i); }); t.join(); }
  std::printf("%d %d %d %d\n", results[0], results[1], results[2], work(100));
}
"#,
    );
}

#[test]
fn coroutines_and_always_inline() {
    check_with(
        "coroutine.cpp",
        r#"#include <coroutine>
#include <cstdio>
struct Numbers {
  struct promise_type {
    int value;
    Numbers get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    std::suspend_always yield_value(int v) { value = v; return {}; }
    void return_void() {}
    void unhandled_exception() {}
  };
  std::coroutine_handle<promise_type> handle;
  ~Numbers() { handle.destroy(); }
};
static inline __attribute__((always_inline)) int inner(int x) { static int n; return x + ++n; }
static inline __attribute__((always_inline)) int always(int x) { return inner(x) * 2; }
Numbers count(int n) { for (int i = 0; i < n; i++) co_yield always(i); }
int main() { auto c = count(4); while (c.handle.resume(), !c.handle.done()) std::printf("%d\n", c.handle.promise().value); std::printf("%d\n", always(1)); }
"#,
        &["-std=c++20"],
    );
}

#[test]
fn vectors_and_features_a_function() {
    if !std::is_x86_feature_detected!("avx2") {
        return;
    }
    let text = r#"#include <immintrin.h>
#include <stdarg.h>
#include <stdio.h>
__attribute__((noinline)) __m256d mix(__m256d a, __m256d b, __m256i c, int n, double d) { return _mm256_add_pd(_mm256_mul_pd(a, b), _mm256_add_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(c)), _mm256_set1_pd(n + d))); }
__attribute__((noinline)) __m256i upper(__m256i a) { return _mm256_permute4x64_epi64(a, 0x1b); }
__attribute__((noinline)) double sum(int n, ...) { va_list l; va_start(l, n); double s = 0; while (n--) s += va_arg(l, double); va_end(l); return s; }
__attribute__((noinline)) long double ld(long double a, int k, float f) { return a * k + f; }
int main(void) { double o[4]; long q[4]; _mm256_storeu_pd(o, mix(_mm256_set_pd(1, 2, 3, 4), _mm256_set_pd(5, 6, 7, 8), _mm256_set_epi32(1, 2, 3, 4, 5, 6, 7, 8), 2, .5)); _mm256_storeu_si256((__m256i *)q, upper(_mm256_set_epi64x(1, 2, 3, 4))); printf("%g %g %g %g %ld %ld %ld %ld %g %Lg\n", o[0], o[1], o[2], o[3], q[0], q[1], q[2], q[3], sum(9, 1., 2., 3., 4., 5., 6., 7., 8., 9.), ld(2.5L, 3, .25f)); return 0; }
"#;
    check_with("vector.c", text, &["-mavx2"]);
    // The same where only the functions have the feature.
    let parts = text.replace("__attribute__((noinline))", "__attribute__((noinline, target(\"avx2\")))");
    check("parts.c", &parts.replace("int main", "__attribute__((target(\"avx2\"))) int main"));
}
