//! Objects and archives that are made to do harm, as a user meets them: an error that names the file, soon.

use crate::support::{End, Scratch, archive, execute, finish_within, hotbed, object};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Nothing of this may take long; what hangs takes for ever.
const PATIENCE: Duration = Duration::from_secs(120);

const MAIN: &str = "#include <stdio.h>\nint f(void);\nint main(void) { printf(\"%d\\n\", f()); return 0; }\n";

fn run(scratch: &Scratch, input: &Path, flags: &[&str]) -> crate::support::Outcome {
    let mut command = hotbed(["run", "--cache-dir"]);
    command.arg(scratch.join("store")).args(flags).arg(scratch.join("m.c")).arg(input);
    finish_within(&mut command, b"", PATIENCE)
}

fn thin(path: &Path, member: &Path) {
    execute(Command::new("llvm-ar-22").arg("rcsT").arg(path).arg(member));
}

#[test]
fn a_thin_archive_is_its_members() {
    let scratch = Scratch::new("thin");
    scratch.write("m.c", MAIN);
    let source = scratch.write("f.c", "int f(void) { return 1; }");
    let made = object(&source, "o", &["-fPIC"]);
    let path = scratch.join("thin.a");
    thin(&path, &made);
    let said = || run(&scratch, &path, &[]).assert_success("thin archive").stdout;
    assert_eq!((said(), said()), ("1\n".to_owned(), "1\n".to_owned()));
    // The archive stays as it is; what it stands for does not.
    scratch.write("f.c", "int f(void) { return 2; }");
    object(&source, "o", &["-fPIC"]);
    assert_eq!(said(), "2\n");
}

#[test]
fn members_that_are_no_objects_are_named() {
    let scratch = Scratch::new("thin-members");
    scratch.write("m.c", MAIN);
    let sound = object(&scratch.write("f.c", "int f(void) { return 1; }"), "o", &["-fPIC"]);
    let (path, member) = (scratch.join("bad.a"), scratch.join("g.o"));
    std::fs::copy(&sound, &member).unwrap();
    thin(&path, &member);
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let changes: [Change<'_>; 5] = [
        ("cut off", &|member| {
            std::fs::File::options().write(true).open(member).unwrap().set_len(300).unwrap()
        }),
        ("not an object", &|member| std::fs::write(member, "what is this, and what is it for?").unwrap()),
        ("the archive", &|member| {
            std::fs::copy(scratch.join("bad.a"), member).unwrap();
        }),
        ("a pipe", &|member| {
            std::fs::remove_file(member).unwrap();
            execute(Command::new("mkfifo").arg(member));
        }),
        ("gone", &|member| std::fs::remove_file(member).unwrap()),
    ];
    for (what, change) in changes {
        change(&member);
        for flags in [&[][..], &["--isolate"]] {
            let got = run(&scratch, &path, flags);
            assert_eq!(got.end, End::Status(1), "{what}: {}", got.stderr);
            assert!(got.stderr.contains("bad.a") && got.stderr.contains("g.o"), "{what}: {}", got.stderr);
        }
    }
}

#[test]
fn the_same_member_twice_and_an_archive_of_another_system() {
    let scratch = Scratch::new("odd-archives");
    scratch.write("m.c", MAIN);
    let sound = object(&scratch.write("f.c", "int f(void) { return 1; }"), "o", &["-fPIC"]);
    let twice = scratch.join("twice.a");
    execute(Command::new("llvm-ar-22").arg("qcs").arg(&twice).args([&sound, &sound]));
    assert_eq!(run(&scratch, &twice, &[]).stdout, "1\n");
    let foreign = scratch.join("foreign.a");
    execute(Command::new("llvm-ar-22").args(["rcs", "--format=bigarchive"]).arg(&foreign));
    let got = run(&scratch, &foreign, &[]);
    assert_eq!(got.end, End::Status(1));
    assert!(got.stderr.contains("foreign.a: it is not an archive"), "{}", got.stderr);
}

#[test]
fn compressed_debug_information_is_no_damage() {
    let scratch = Scratch::new("compressed");
    scratch.write("m.c", MAIN);
    let source = scratch.write("f.c", "int f(void) { return 1; }");
    for flags in [["-g", "-gz", "-fPIC"], ["-g", "-gz=zstd", "-fPIC"]] {
        let made = object(&source, "o", &flags);
        assert_eq!(run(&scratch, &made, &[]).assert_success("object").stdout, "1\n");
        let path = scratch.join("f.a");
        archive(&path, &[made]);
        assert_eq!(run(&scratch, &path, &[]).assert_success("archive").stdout, "1\n");
    }
}
