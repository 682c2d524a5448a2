//! Where the libraries of an image are looked for: where the run-time linker looks for those of an executable.

use crate::support::{Outcome, Scratch, execute, finish, hotbed, shared_library};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders with a library `libwhere.so` each, which says which one it is.
struct Places {
    scratch: Scratch,
}

impl Places {
    fn new(name: &str, folders: &[&str]) -> Self {
        let scratch = Scratch::new(name);
        for folder in folders {
            let source = format!("const char *place(void) {{ return \"{folder}\"; }}");
            let made = shared_library(&scratch.write("where.c", source), &["-Wl,-soname,libwhere.so"]);
            std::fs::rename(made, scratch.folder(folder).join("libwhere.so")).unwrap();
        }
        let program =
            "#include <stdio.h>\nconst char *place(void); int main(void) { puts(place()); return 0; }";
        scratch.write("p.c", program);
        Self { scratch }
    }

    fn link(&self, command: &mut Command, output: &str, flags: &[&str]) -> PathBuf {
        let output = self.scratch.folder("bin").join(output);
        let search = format!("-L{}", self.scratch.join("a").display());
        command.arg(self.scratch.join("p.c")).args([&search, "-lwhere"]).args(flags);
        execute(command.arg("-o").arg(&output));
        output
    }

    /// The executable with these flags and the image, in an environment.
    fn check(&self, flags: &[&str], environment: Option<&Path>, expected: &str) {
        let executable = self.link(&mut Command::new("clang-22"), "p", flags);
        let image = self.link(&mut hotbed(["image", "build", "--no-cache"]), "p.hbi", flags);
        let run = |command: &mut Command| -> Outcome {
            if let Some(path) = environment {
                command.env("LD_LIBRARY_PATH", path);
            }
            finish(command)
        };
        let want = run(&mut Command::new(&executable));
        assert_eq!(want.stdout, format!("{expected}\n"), "the run-time linker: {flags:?}: {}", want.stderr);
        run(hotbed(["run", "--no-cache"]).arg(&image)).assert_same(&want, &format!("{flags:?}"));
    }
}

const OLD: &str = "-Wl,--disable-new-dtags";
const NEW: &str = "-Wl,--enable-new-dtags";

#[test]
fn the_environment_comes_after_the_old_entry_and_before_the_new_one() {
    let places = Places::new("paths-order", &["a", "b"]);
    let rpath = format!("-Wl,-rpath,{}", places.scratch.join("a").display());
    let b = places.scratch.join("b");
    places.check(&[&rpath, OLD], None, "a");
    places.check(&[&rpath, OLD], Some(&b), "a");
    places.check(&[&rpath, NEW], None, "a");
    places.check(&[&rpath, NEW], Some(&b), "b");
    places.check(&[], Some(&b), "b");
}

#[test]
fn tokens_are_expanded() {
    let places = Places::new("paths-tokens", &["a", "lib/x86_64-linux-gnu", "lib64", "lib"]);
    places.check(&["-Wl,-rpath,$ORIGIN/../a", NEW], None, "a");
    places.check(&["-Wl,-rpath,${ORIGIN}/../a", OLD], None, "a");
    let libc = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lib = ["lib/x86_64-linux-gnu", "lib64", "lib"].into_iter();
    let lib = lib.into_iter().find(|lib| libc.contains(&format!("/{lib}/libc.so.6"))).unwrap();
    places.check(&["-Wl,-rpath,$ORIGIN/../$LIB", NEW], None, lib);
}

#[test]
fn libraries_inherit_the_old_entry() {
    let scratch = Scratch::new("paths-inherited");
    let hidden = scratch.folder("hidden");
    let library = |name: &str, source: &str, needs: &[&str]| {
        let flag = format!("-L{}", hidden.display());
        let soname = format!("-Wl,-soname,lib{name}.so");
        let flags = [&[flag.as_str(), &soname], needs].concat();
        let made = shared_library(&scratch.write(format!("{name}.c"), source), &flags);
        std::fs::rename(made, hidden.join(format!("lib{name}.so"))).unwrap();
    };
    library("inner", "int inner(void) { return 20; }", &[]);
    library("outer", "int inner(void); int outer(void) { return inner() + 1; }", &["-linner"]);
    let source = scratch.write("p.c", "int outer(void); int main(void) { return outer() * 2; }");
    let search = format!("-L{}", hidden.display());
    let rpath = format!("-Wl,-rpath,{},-rpath-link,{}", hidden.display(), hidden.display());
    for (dtags, works) in [(OLD, true), (NEW, false)] {
        let link = |command: &mut Command, output: &Path| {
            command.arg(&source).args([&search, "-louter", &rpath, dtags, "-o"]);
            execute(command.arg(output));
        };
        let (executable, image) = (scratch.join("p"), scratch.join("p.hbi"));
        link(&mut Command::new("clang-22"), &executable);
        link(&mut hotbed(["image", "build", "--no-cache"]), &image);
        let want = finish(&mut Command::new(&executable));
        let got = finish(hotbed(["run", "--no-cache"]).arg(&image));
        if works {
            got.assert_same(&want, dtags);
        } else {
            assert!(
                want.stderr.contains("libinner.so") && got.stderr.contains("libinner.so"),
                "{}",
                got.stderr
            );
        }
    }
}
