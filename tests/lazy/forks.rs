//! Processes that fork while functions are being compiled: both go on, each for itself.

use super::same;
use std::fmt::Write as _;

/// `count` functions that each change a variable of their own, and a table of them.
fn functions(count: usize) -> String {
    let mut text = String::from(
        "#define _GNU_SOURCE\n#include <pthread.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <sys/wait.h>\n#include <unistd.h>\n",
    );
    for at in 0..count {
        writeln!(
            text,
            "static int v{at} = {at}; static int s{at}(int x) {{ static int calls; return v{at} + x + 1000 * calls++; }}\n\
             int f{at}(int x) {{ v{at} += x; return s{at}(x); }}"
        )
        .unwrap();
    }
    text.push_str("static int (*table[])(int) = {");
    for at in 0..count {
        write!(text, "f{at}, ").unwrap();
    }
    text.push_str("};\nenum { COUNT = sizeof table / sizeof *table };\n");
    text
}

#[test]
fn from_several_threads_that_compile() {
    let text = functions(120)
        + r#"
static pthread_barrier_t together;
static int result[4];
/* A quarter of the functions is each thread's own; its child calls all of them. */
static void *work(void *p) {
  long me = (long)p;
  pthread_barrier_wait(&together);
  long sum = 0;
  for (int i = 0; i < COUNT / 8; i++) sum += table[4 * i + me](1);
  pid_t child = fork();
  if (child == 0) {
    for (int i = COUNT / 8; i < COUNT / 4; i++) sum += table[4 * i + me](2);
    /* What the others have called until then is not known; theirs are changed here alone. */
    for (int i = 0; i < COUNT; i++) if (i % 4 != me) table[i](100000);
    for (int i = 0; i < COUNT / 4; i++) sum += table[4 * i + me](0);
    _exit((int)(sum % 251));
  }
  for (int i = COUNT / 8; i < COUNT / 4; i++) sum += table[4 * i + me](3);
  for (int i = 0; i < COUNT / 4; i++) sum += table[4 * i + me](0);
  int status = 0;
  waitpid(child, &status, 0);
  result[me] = (int)(sum % 100003) * 1000 + (WIFEXITED(status) ? WEXITSTATUS(status) : 900 + WTERMSIG(status));
  return 0;
}
int main(void) {
  pthread_t t[4];
  pthread_barrier_init(&together, 0, 4);
  for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, work, (void *)i);
  for (int i = 0; i < 4; i++) { pthread_join(t[i], 0); printf("%d\n", result[i]); }
}
"#;
    same("forks.c", &text);
}

#[test]
fn generations_that_compile() {
    let text = functions(60)
        + r#"
int main(void) {
  int sum = 0;
  setvbuf(stdout, 0, _IONBF, 0);
  for (int generation = 0; generation < 5; generation++) {
    for (int i = 0; i < 10; i++) sum += table[generation * 10 + i](generation);
    pid_t child = fork();
    if (child) {
      int status;
      waitpid(child, &status, 0);
      /* What the child has compiled, this one has not. */
      for (int i = 0; i < COUNT; i++) sum += table[COUNT - 1 - i](1);
      printf("%d %d %d\n", generation, sum, status);
      return generation;
    }
  }
  printf("last %d\n", sum);
  return 7;
}
"#;
    same("generations.c", &text);
}

#[test]
fn with_handlers_of_forks() {
    let text = r#"
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static int order, before, parent, child;
static int step(int *place) { return *place = ++order; }
static void prepare(void) { step(&before); }
static void in_parent(void) { step(&parent); }
static void in_child(void) { step(&child); }
static int later(int x) { return x * 10 + order; }
static int only_in_child(int x) { return x + child; }
__attribute__((constructor)) static void begin(void) { pthread_atfork(prepare, in_parent, in_child); }
int main(void) {
  for (int i = 0; i < 3; i++) {
    pid_t pid = fork();
    if (!pid) _exit(only_in_child(i) + before);
    int status;
    waitpid(pid, &status, 0);
    printf("%d %d %d %d %d\n", WEXITSTATUS(status), before, parent, child, later(i));
  }
  if (!vfork()) _exit(0);
  puts("vfork");
}
"#;
    same("handlers.c", text);
}
