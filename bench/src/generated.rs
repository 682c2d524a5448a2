//! Sources that the bench makes up, and images and libraries of them.
//!
//! A generated unit is what a plugin looks like to a loader: functions that call each other and the C and maths
//! libraries, tables of names and of function pointers (relocated data), variables with and without a value, and an
//! entry that gives the unit's number. Which functions do what, and which imports a unit has, follows from its number,
//! so that no two are alike and every run has the same ones.

use crate::Result;
use crate::context::Context;
use crate::process::{clang, output_of};
use crate::rows::compile::runtime;
use crate::side::{Side, number};
use hotbed::{BUILD, Isolation, Source};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Builds images of generated units: folder, how many, fewest functions, most functions.
pub(crate) const BUILD_IMAGES: Side = Side { id: "generated.images", work: build_images };

/// What a function of a generated unit may be called.
const VERBS: [&str; 12] = [
    "open", "close", "update", "render", "parse", "format", "query", "insert", "remove", "resize", "encode",
    "decode",
];
/// What a function of a generated unit may be about.
const NOUNS: [&str; 11] = [
    "window", "buffer", "texture", "record", "message", "session", "matrix", "glyph", "widget", "stream",
    "node",
];

/// Expressions over `x`, a variable `line` and the table `words`, each with an import of its own.
const IMPORTS: [&str; 48] = [
    "(int)strtol(words[x & 7], 0, 10)",
    "(int)strtod(words[x & 7], 0)",
    "(int)strtoul(words[x & 3], 0, 16)",
    "snprintf(line, sizeof line, \"%d %s\", x, words[x & 7])",
    "sscanf(words[x & 7], \"%d\", &x)",
    "(int)strlen(words[x & 7])",
    "strcmp(words[x & 7], words[x & 3])",
    "strncmp(words[x & 7], words[x & 3], 3)",
    "strcasecmp(words[x & 7], words[x & 3])",
    "strchr(words[x & 7], 'a') != 0",
    "strrchr(words[x & 7], 'b') != 0",
    "strstr(words[x & 7], words[x & 3]) != 0",
    "(int)strspn(words[x & 7], \"abc\")",
    "(int)strcspn(words[x & 7], \"xyz\")",
    "memcmp(words[x & 7], words[x & 3], 4)",
    "memchr(words[x & 7], 'q', 4) != 0",
    "(int)(long)memmove(line + 1, line, (unsigned)x & 7)",
    "(int)(long)strncpy(line, words[x & 7], sizeof line)",
    "getenv(words[x & 7]) != 0",
    "(int)time(0)",
    "(int)clock()",
    "rand()",
    "(srand((unsigned)x), 1)",
    "atoi(words[x & 7])",
    "toupper(x & 127)",
    "tolower(x & 127)",
    "isalpha(x & 127)",
    "errno",
    "fputs(words[x & 7], stderr)",
    "fputc(x, stdout)",
    "fflush(stdout)",
    "fprintf(stderr, \"%s: %d\\n\", words[x & 7], x)",
    "puts(words[x & 7])",
    "(int)sin(x + 0.5)",
    "(int)cos(x + 0.5)",
    "(int)tan(x + 0.5)",
    "(int)pow(x, 1.5)",
    "(int)exp(x * 0.01)",
    "(int)log(x + 2.0)",
    "(int)atan2(x, 3.0)",
    "(int)fmod(x, 3.5)",
    "(int)hypot(x, 4.0)",
    "(int)cbrt(x)",
    "(int)erf(x * 0.1)",
    "(int)lgamma(x + 1.5)",
    "(int)sinh(x * 0.1)",
    "(int)ldexp(x, 3)",
    "(int)log10(x + 2.0)",
];

/// A source and what it exports.
pub(crate) struct Generated {
    /// File name without a suffix, `u017`.
    pub(crate) name: String,
    /// The C source.
    pub(crate) text: String,
    /// Its exported functions but for the entry and one that allocates.
    pub(crate) functions: Vec<String>,
    /// The function, without parameters, that gives the unit's number.
    pub(crate) entry: String,
}

/// A linear congruential generator: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// The unit `number` with that many functions.
///
/// # Errors
/// Never; writing to a string can fail only in type.
pub(crate) fn unit(number: usize, functions: usize) -> Result<Generated> {
    let mut numbers = Numbers(number as u64 + 1);
    let name = format!("u{number:03}");
    let mut names: Vec<String> = Vec::new();
    let mut text = String::from(
        "#include <ctype.h>\n#include <errno.h>\n#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
         #include <string.h>\n#include <strings.h>\n#include <time.h>\n\
         static char line[256];\nstatic int state = 1, total;\nstatic double cells[64];\n",
    );
    // A unit uses a part of what there is, from its own place on.
    let (first_import, imports) = (numbers.below(IMPORTS.len()), 6 + numbers.below(30));
    text.push_str("static const char *const words[8] = {");
    for _ in 0..8 {
        write!(text, "\"{}{}\", ", NOUNS[numbers.below(NOUNS.len())], numbers.below(1000))?;
    }
    text.push_str("};\nstruct action { const char *name; int (*run)(int); };\n");
    for index in 0..functions {
        let verb = VERBS[numbers.below(VERBS.len())];
        let function = format!("{name}_{verb}_{}_{index:03}", NOUNS[numbers.below(NOUNS.len())]);
        let constant = numbers.below(100_000);
        match numbers.below(4) {
            0 if names.len() >= 4 => {
                write!(text, "static const struct action actions_{index}[4] = {{")?;
                for _ in 0..4 {
                    let target = &names[numbers.below(names.len())];
                    write!(text, "{{\"{target}\", {target}}}, ")?;
                }
                writeln!(
                    text,
                    "}};\nint {function}(int x) {{ total += x; return actions_{index}[x & 3].run(x >> 2) + \
                     actions_{index}[x & 1].name[0]; }}"
                )?;
            }
            1 if !names.is_empty() => {
                let (one, other) = (&names[numbers.below(names.len())], &names[numbers.below(names.len())]);
                writeln!(
                    text,
                    "int {function}(int x) {{ if (x > {constant}) return {one}(x - 1) ^ {other}(x / 2); \
                     cells[x & 63] += x; return x + {constant}; }}"
                )?;
            }
            2 => writeln!(
                text,
                "int {function}(int x) {{ for (int i = 0; i < (x & 15); i++) state = state * 31 + (x ^ i) + \
                 {constant}; return state; }}"
            )?,
            _ => {
                let import = IMPORTS[(first_import + numbers.below(imports)) % IMPORTS.len()];
                writeln!(text, "int {function}(int x) {{ state ^= {import}; return state + {constant}; }}")?;
            }
        }
        names.push(function);
    }
    // Every unit needs something of the C library itself: an image that needs the maths library alone is refused by the
    // system's loader, which looks for the version that allows `DT_RELR` among those of the C library.
    writeln!(text, "void *{name}_allocate(int x) {{ return calloc((unsigned)x, sizeof cells); }}")?;
    let entry = format!("{name}_entry");
    writeln!(text, "int {entry}(void) {{ return {number}; }}")?;
    Ok(Generated { name, text, functions: names, entry })
}

/// How many functions unit `number` of a set has: from `fewest` to `most`, the numbers of a set spread over all of it.
fn size(number: usize, fewest: usize, most: usize) -> usize {
    fewest + number * 37 % (most - fewest + 1)
}

/// The generated units of a set, and where their images are.
pub(crate) struct Set {
    /// The units.
    pub(crate) units: Vec<Generated>,
    /// The image of each.
    pub(crate) images: Vec<PathBuf>,
}

/// The units `0..count` with `fewest` to `most` functions, as images. They are built in a process of its own, so that no
/// back end lies in this one, and kept from run to run.
///
/// # Errors
/// When they cannot be built.
pub(crate) fn images(context: &Context, count: usize, fewest: usize, most: usize) -> Result<Set> {
    let units = (0..count).map(|at| unit(at, size(at, fewest, most))).collect::<Result<Vec<_>>>()?;
    let texts: Vec<&str> = units.iter().map(|unit| unit.text.as_str()).collect();
    let folder = context.kept(&format!("images-{count}"), &(BUILD, FLAGS, texts), |folder| {
        let folder = folder.to_str().ok_or("the scratch folder's path is no text")?;
        let numbers = [count, fewest, most].map(|number| number.to_string());
        BUILD_IMAGES.run(context, &[folder, &numbers[0], &numbers[1], &numbers[2]]).map(drop)
    })?;
    let images = units.iter().map(|unit| folder.join(format!("{}.hbi", unit.name))).collect();
    Ok(Set { units, images })
}

/// How generated units are compiled.
const FLAGS: [&str; 2] = ["-O1", "-w"];

/// See [`BUILD_IMAGES`].
fn build_images(context: &Context, arguments: &[String]) -> Result<Vec<f64>> {
    let folder = Path::new(arguments.first().ok_or("no folder is given")?);
    let [count, fewest, most] = [number(arguments, 1)?, number(arguments, 2)?, number(arguments, 3)?];
    let runtime = runtime(context, Isolation::InProcess)?;
    for at in 0..count {
        let unit = unit(at, size(at, fewest, most))?;
        let source =
            Source::text(format!("{}.c", unit.name), unit.text).flags(FLAGS.into_iter().chain(["-lm"]));
        runtime.image(folder.join(format!("{}.hbi", unit.name))).unit(source).build()?;
    }
    Ok(Vec::new())
}

/// `count` ordinary shared libraries with 100 to 299 functions each, compiled by clang and kept from run to run.
///
/// # Errors
/// When clang is not installed or does not take the sources.
pub(crate) fn libraries(context: &Context, count: usize) -> Result<Vec<PathBuf>> {
    // Numbers apart from those of the images, so that no name is in both.
    let units = (0..count).map(|at| unit(500 + at, size(at, 100, 299))).collect::<Result<Vec<_>>>()?;
    let texts: Vec<&str> = units.iter().map(|unit| unit.text.as_str()).collect();
    let folder = context.kept(&format!("libraries-{count}"), &(FLAGS, texts), |folder| {
        for unit in &units {
            let source = folder.join(format!("{}.c", unit.name));
            std::fs::write(&source, &unit.text)?;
            let mut compile = clang(["-shared", "-fPIC", "-o"])?;
            let library = folder.join(format!("lib{}.so", unit.name));
            output_of(compile.arg(library).args(FLAGS).arg(&source).arg("-lm"))?;
        }
        Ok(())
    })?;
    Ok(units.iter().map(|unit| folder.join(format!("lib{}.so", unit.name))).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn units_differ_and_are_the_same_in_every_run() {
        let (one, again, other) = (unit(7, 60).unwrap(), unit(7, 60).unwrap(), unit(8, 60).unwrap());
        assert_eq!(one.text, again.text);
        assert_eq!(one.functions.len(), 60);
        let shared = one.functions.iter().collect::<HashSet<_>>();
        assert_eq!(shared.len(), 60);
        assert!(!other.functions.iter().any(|name| shared.contains(name)));
    }

    #[test]
    fn sizes_span_what_was_asked_for() {
        let sizes: Vec<_> = (0..50).map(|at| size(at, 20, 200)).collect();
        assert!(sizes.iter().all(|size| (20..=200).contains(size)));
        assert!(sizes.iter().any(|size| *size < 40) && sizes.iter().any(|size| *size > 180));
    }
}
