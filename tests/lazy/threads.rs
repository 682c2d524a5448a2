//! Many threads that call functions for the first time, signals that come meanwhile, and threads with hardly any stack.

use super::same;
use hotbed::{Runtime, Source, Unit};
use std::fmt::Write as _;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

/// So many functions that call each other, each with something of its own in data.
fn numbers(count: usize) -> String {
    let mut text = String::new();
    for at in 0..count {
        // Calls go down by half, so that many come to the same functions.
        let callee = if at == 0 { "x".to_owned() } else { format!("f{}(x)", at / 2) };
        writeln!(
            text,
            "static int d{at} = {at}; static int h{at}(int x) {{ return x + d{at}; }}\n\
             int f{at}(int x) {{ static int calls; __atomic_fetch_add(&calls, 1, 5); return h{at}({callee}); }}"
        )
        .unwrap();
    }
    text
}

/// What `f{at}(x)` gives.
fn want(at: usize, x: i32) -> i32 {
    let mut sum = x;
    let mut at = at;
    while at > 0 {
        sum += at as i32;
        at /= 2;
    }
    sum
}

fn call(unit: &Unit, at: usize, x: i32) -> i32 {
    // SAFETY: that is the type of all of them.
    let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>(&format!("f{at}")) }.unwrap();
    // SAFETY: as above.
    unsafe { f(x) }
}

#[test]
fn of_a_host_calling_the_same_functions() {
    const COUNT: usize = 300;
    const THREADS: usize = 8;
    for level in ["-O0", "-O1"] {
        let runtime = Runtime::builder().no_cache().build().unwrap();
        let unit = runtime.load(Source::text("many.c", numbers(COUNT)).flags([level]).lazy()).unwrap();
        assert_eq!(runtime.functions_compiled(), 0);
        let together = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (unit, together) = (&unit, &together);
                scope.spawn(move || {
                    together.wait();
                    for step in 0..COUNT {
                        // From both ends, and from the middle.
                        let at = match thread % 3 {
                            0 => step,
                            1 => COUNT - 1 - step,
                            _ => (step * 7 + thread) % COUNT,
                        };
                        assert_eq!(call(unit, at, thread as i32), want(at, thread as i32));
                    }
                });
            }
        });
        let compiled = runtime.functions_compiled() as usize;
        assert!((COUNT..=2 * COUNT).contains(&compiled), "{level}: {compiled}");
    }
}

#[test]
fn of_a_host_loading_and_unloading_meanwhile() {
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let base = runtime.load(Source::text("base.c", numbers(60)).named("base").lazy()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (runtime, done) = (&runtime, &done);
            scope.spawn(move || {
                for round in 0..12 {
                    let text = format!(
                        "int f30(int); static int own(int x) {{ return x * {round}; }}\n\
                         int late(int x) {{ return own(x) + 1; }}\n\
                         int g{thread}(int x) {{ return f30(x) + own(x); }}"
                    );
                    let name = format!("unit {thread}");
                    let unit = runtime.load(Source::text("u.c", text).named(name).lazy()).unwrap();
                    // SAFETY: that is its type.
                    let g = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>(&format!("g{thread}")) };
                    // SAFETY: as above.
                    assert_eq!(unsafe { g.unwrap()(5) }, want(30, 5) + 5 * round);
                    unit.unload().unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        let (base, done) = (&base, &done);
        scope.spawn(move || {
            for at in (0..60).cycle() {
                assert_eq!(call(base, at, 1), want(at, 1));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
    });
    base.unload().unwrap();
    assert!(runtime.units().is_empty());
}

#[test]
fn of_a_program_with_little_stack() {
    let text = r#"
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#define F(n) __attribute__((noinline)) static long f##n(long x) { volatile long v = x; return v * n + 1; }
F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12)
static long (*volatile table[])(long) = {f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12};
static pthread_barrier_t together;
static void *work(void *p) {
  long x = (long)p;
  pthread_barrier_wait(&together);
  for (int i = 0; i < 12; i++) x = table[(i + (long)p) % 12](x) % 1000003;
  return (void *)x;
}
int main(void) {
  pthread_attr_t a;
  pthread_t t[8];
  pthread_attr_init(&a);
  pthread_attr_setstacksize(&a, 16384);
  pthread_barrier_init(&together, 0, 8);
  for (long i = 0; i < 8; i++) if (pthread_create(&t[i], &a, work, (void *)i)) return 1;
  for (int i = 0; i < 8; i++) { void *r; pthread_join(t[i], &r); printf("%ld\n", (long)r); }
}
"#;
    same("stack.c", text);
}

#[test]
fn of_a_program_that_is_interrupted() {
    let mut text = String::from(
        r#"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
static volatile int ticks, wrong;
__attribute__((noinline)) static int deeper(int x) { return x + 1; }
__attribute__((noinline)) static int deep(int x) { return deeper(x) * 2; }
static void tick(int s, siginfo_t *info, void *context) { if (deep(s) != 2 * (s + 1)) wrong++; ticks++; }
#define F(n) __attribute__((noinline)) static double f##n(double x, int y) { char text[80]; snprintf(text, sizeof text, "%d %g", n + y, x * n); return x + strlen(text); }
"#,
    );
    for at in 0..150 {
        writeln!(text, "F({at})").unwrap();
    }
    text.push_str("static double (*table[])(double, int) = {");
    for at in 0..150 {
        write!(text, "f{at}, ").unwrap();
    }
    text.push_str(
        r#"};
int main(void) {
  struct sigaction a = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO};
  sigaction(SIGALRM, &a, 0);
  struct itimerval often = {{0, 500}, {0, 500}}, never = {0};
  setitimer(ITIMER_REAL, &often, 0);
  double sum = 0;
  for (int i = 0; i < 150; i++) sum = table[i](sum, i);
  while (ticks < 50) { struct timespec t = {0, 1000000}; nanosleep(&t, 0); }
  setitimer(ITIMER_REAL, &never, 0);
  printf("%g %d\n", sum, wrong);
}
"#,
    );
    same("interrupted.c", &text);
}

#[test]
fn of_a_program_that_shares_its_work() {
    let text = r#"
#include <atomic>
#include <cstdio>
#include <deque>
#include <functional>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <vector>
using Job = std::function<void(int)>;
class Queue {
  std::mutex lock;
  std::deque<Job> jobs;
public:
  void push(Job job) { std::lock_guard hold(lock); jobs.push_back(std::move(job)); }
  std::optional<Job> pop() { std::lock_guard hold(lock); if (jobs.empty()) return {}; Job j = std::move(jobs.back()); jobs.pop_back(); return j; }
  std::optional<Job> steal() { std::lock_guard hold(lock); if (jobs.empty()) return {}; Job j = std::move(jobs.front()); jobs.pop_front(); return j; }
};
class Pool {
  std::vector<Queue> queues;
  std::vector<std::thread> threads;
  std::atomic<long> open{0};
public:
  explicit Pool(int count) : queues(count) {}
  void add(int at, Job job) { open++; queues[at].push(std::move(job)); }
  void work(int me) {
    while (open.load() > 0) {
      auto job = queues[me].pop();
      for (size_t i = 1; !job && i < queues.size(); i++) job = queues[(me + i) % queues.size()].steal();
      if (job) { (*job)(me); open--; } else std::this_thread::yield();
    }
  }
  void run() {
    for (size_t i = 0; i < queues.size(); i++) threads.emplace_back([this, i] { work((int)i); });
    for (auto &t : threads) t.join();
  }
};
static std::vector<long> data(20000);
thread_local long mine;
static void sort(Pool &pool, int me, long low, long high) {
  mine++;
  if (high - low < 32) {
    for (long i = low + 1; i < high; i++) for (long j = i; j > low && data[j] < data[j - 1]; j--) std::swap(data[j], data[j - 1]);
    return;
  }
  long pivot = data[(low + high) / 2], i = low, j = high - 1;
  while (i <= j) { while (data[i] < pivot) i++; while (data[j] > pivot) j--; if (i <= j) std::swap(data[i++], data[j--]); }
  pool.add(me, [&pool, low, j](int me) { sort(pool, me, low, j + 1); });
  pool.add(me, [&pool, i, high](int me) { sort(pool, me, i, high); });
}
int main() {
  unsigned long x = 1;
  for (auto &d : data) d = (x = x * 6364136223846793005 + 1442695040888963407) >> 40;
  Pool pool(6);
  pool.add(0, [&](int me) { sort(pool, me, 0, (long)data.size()); });
  pool.run();
  bool sorted = true;
  for (size_t i = 1; i < data.size(); i++) sorted &= data[i - 1] <= data[i];
  std::printf("%d %ld\n", sorted, std::accumulate(data.begin(), data.end(), 0L));
}
"#;
    same("steal.cpp", text);
}
