//! Real libraries lazily, against clang's executables.

use super::assert_lazy;
use crate::libraries::Library;
use crate::support::{Scratch, execute, finish, hotbed};
use std::process::Command;

/// Runs the program of a library lazily at `level`, cold and warm; what it does is the same at every level.
fn check(name: &str, level: &str) {
    let scratch = Scratch::new(&format!("lazy-{name}{level}"));
    compare(&scratch, &Library::find(name), level, name);
}

fn compare(scratch: &Scratch, library: &Library, level: &str, name: &str) {
    let executable = scratch.join("executable");
    let objects = library.compile(scratch, &["-O0"], "o");
    let mut command = Command::new(library.compiler());
    execute(command.args(&objects).args(&library.libs).arg("-lpthread").arg("-o").arg(&executable));
    let want = finish(&mut Command::new(&executable));
    for round in ["cold", "warm"] {
        let mut command = hotbed(["run", "--lazy", "--timings=json", "--cache-dir"]);
        command.arg(scratch.join("store")).args(&library.flags).arg(level);
        let got = finish(command.args(&library.files).arg(&library.program).args(&library.libs));
        let what = format!("{name} {level}, {round}");
        got.assert_same(&want, &what);
        assert_lazy(&got, round, &what);
    }
}

macro_rules! libraries {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name), "-O0");
        })*

        #[test]
        #[ignore = "slow: make test-slow"]
        fn all_of_them_optimised() {
            $(check(stringify!($name), "-O2");)*
            of_several_threads("-O2");
        }
    };
}

libraries!(sqlite3, lua, flecs, zlib, stb_image, imgui, miniaudio);

#[test]
fn a_database_of_several_threads() {
    of_several_threads("-O0");
}

fn of_several_threads(level: &str) {
    let text = r#"
#include "sqlite3.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static char path[256];
static int rows(void *p, int n, char **v, char **c) { *(long *)p = *(long *)p * 31 + atol(v[0]) + (n > 1 && v[1] ? v[1][0] : 0); return 0; }
static void *own(void *p) {
  sqlite3 *db;
  long sum = 0;
  char *error = 0, sql[400];
  if (sqlite3_open(":memory:", &db)) return (void *)-1;
  snprintf(sql, sizeof sql, "create table t(a integer primary key, b text, c real); create index i on t(b);"
    "with recursive n(x) as (select 1 union all select x + 1 from n where x < %d) insert into t select x, hex(x * 7919 %% 1009), x / 3.0 from n;", 300 + (int)(long)p * 50);
  if (sqlite3_exec(db, sql, 0, 0, &error)) return (void *)-2;
  static const char *const queries[] = {
    "select count(*), max(b) from t", "select a, b from t where b like '3%' order by b desc limit 9",
    "select sum(length(b)), group_concat(b) from (select b from t order by a limit 5)",
    "select x.a, y.b from t x join t y on x.a = y.a * 2 where y.c > 20 order by 1 limit 20",
    "update t set c = c + 1 where a % 3 = 0", "select cast(total(c) as integer), typeof(c) from t",
    "delete from t where a % 2", "select count(*), strftime('%Y', '2020-02-03') from t", "select json_extract('{\"a\":[1,2,3]}', '$.a[1]'), printf('%05d', 42)"};
  for (int i = 0; i < 9; i++) if (sqlite3_exec(db, queries[(i + (i < 4 ? (long)p : 0)) % (i < 4 ? 4 : 9)], rows, &sum, &error)) return (void *)-3;
  sqlite3_close(db);
  return (void *)sum;
}
int main(void) {
  pthread_t t[6];
  printf("%d\n", sqlite3_threadsafe());
  for (long i = 0; i < 6; i++) pthread_create(&t[i], 0, own, (void *)i);
  for (int i = 0; i < 6; i++) { void *r; pthread_join(t[i], &r); printf("%ld\n", (long)r); }
}
"#;
    let scratch = Scratch::new(&format!("lazy-sqlite-threads{level}"));
    let mut library = Library::find("sqlite3");
    library.program = scratch.write("threads.c", text);
    compare(&scratch, &library, level, "sqlite3 of several threads");
}
