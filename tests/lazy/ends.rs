//! Functions that are called first while the process ends.

use super::same;

#[test]
fn destructors_are_compiled_when_much_is_gone() {
    let text = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int numbers[64];
/* The optimiser makes vectors of these: before main ends, and again after. */
__attribute__((noinline)) static int sum(int x) {
  int all = 0;
  for (int i = 0; i < 64; i++) numbers[i] = numbers[i] * x + i;
  for (int i = 0; i < 64; i++) all += numbers[i] * numbers[63 - i];
  return all;
}
__attribute__((noinline)) static int mixed(int x) {
  int all = 0;
  for (int i = 0; i < 64; i++) numbers[i] = (numbers[i] ^ x) - i;
  for (int i = 0; i < 64; i++) all ^= numbers[i] + numbers[63 - i];
  return all;
}
static void late(void) { printf("late %zu\n", strlen(getenv("PATH") ? "path" : "")); }
__attribute__((destructor)) static void end(void) { static int times; times++; printf("end %d %d\n", mixed(4), times); }
int main(void) { atexit(late); printf("%d\n", sum(3)); return 5; }
"#;
    same("ends.c", text);
}

#[test]
fn objects_are_destroyed_by_what_is_compiled_then() {
    let text = r#"
#include <cstdio>
#include <map>
#include <string>
#include <vector>
template <class T> struct Keeper {
  std::map<std::string, std::vector<T>> kept;
  ~Keeper() { T all{}; for (auto &[name, list] : kept) { for (auto one : list) all += one; std::printf("%s %g\n", name.c_str(), double(all)); } }
};
static Keeper<int> ints;
inline Keeper<double> doubles;
static thread_local Keeper<float> floats;
int main() { ints.kept["a"] = {1, 2}; doubles.kept["b"] = {0.5, 4}; floats.kept["c"] = {0.25f}; }
"#;
    same("objects.cpp", text);
}
