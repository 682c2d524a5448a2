//! Whatever happens to the store, by accident or on purpose: programs do what they should.

use super::Bed;
use crate::support::{Scratch, finish, hotbed, kept, timing};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Kills processes that write to a store, at any time, as often; whoever comes after one of them must not notice.
fn kill_writers(name: &str, rounds: u32) {
    let bed = Bed::new(name);
    let command = || {
        let mut command = bed.command(&bed.store());
        command.arg("--eager").stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let started = Instant::now();
    assert_eq!(finish(&mut command()).stdout, "1 0\n");
    let whole = started.elapsed();
    let mut random = 12345u32;
    for round in 0..rounds {
        // In some rounds there is something to take up again.
        if round % 3 != 0 {
            let _ = std::fs::remove_dir_all(bed.store());
        } else {
            bed.scratch.write("second/value.h", format!("#define VALUE 1\n// {round}\n"));
        }
        random = random.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let mut writer = command().spawn().unwrap();
        std::thread::sleep(whole * (random >> 16) / 60_000);
        // It may have ended.
        let _ = writer.kill();
        writer.wait().unwrap();
        let got = finish(&mut command()).assert_success("after a kill");
        assert_eq!(got.stdout, "1 0\n", "round {round}: {}", got.stderr);
    }
    let mut collect = hotbed(["cache", "gc", "--cache-dir"]);
    finish(collect.arg(bed.store())).assert_success("gc");
    let mut stat = hotbed(["cache", "stat", "--json", "--cache-dir"]);
    assert_eq!(timing(&finish(stat.arg(bed.store())).stdout, "orphans"), "0");
    assert!(bed.files().iter().all(|file| !file.to_string_lossy().contains("tmp-")), "{:?}", bed.files());
    assert_eq!(timing(&finish(&mut command()).stderr, "units_compiled"), "0");
}

#[test]
fn writers_are_killed() {
    kill_writers("killed", 36);
}

#[test]
#[ignore = "slow: make test-slow"]
fn writers_are_killed_many_times() {
    kill_writers("killed-often", 500);
}

#[test]
fn a_copied_store_is_used_whatever_its_times_are() {
    let bed = Bed::new("copied");
    bed.prints("1 0\n", true);
    bed.prints("1 0\n", false);
    let copy = bed.scratch.join("copy");
    assert!(Command::new("cp").arg("-r").arg(bed.store()).arg(&copy).status().unwrap().success());
    std::fs::remove_dir_all(bed.store()).unwrap();
    std::fs::rename(&copy, bed.store()).unwrap();
    bed.prints("1 0\n", false);
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    for time in [SystemTime::UNIX_EPOCH, SystemTime::now() - year, SystemTime::now() + year] {
        for file in
            bed.files().into_iter().chain(["main.c", "second/value.h"].map(|name| bed.scratch.join(name)))
        {
            // A keeper may have taken one away.
            if let Ok(file) = std::fs::File::options().append(true).open(file) {
                file.set_modified(time).unwrap();
            }
        }
        bed.prints("1 0\n", false);
    }
}

/// Two programs that were run and have said different things, with one image each.
fn two() -> (Scratch, [PathBuf; 2]) {
    let scratch = Scratch::new("store-faults-two");
    let sources = ["one", "two"].map(|text| {
        let main = format!("#include <stdio.h>\nint main(void) {{ puts(\"{text}\"); return 0; }}");
        scratch.write(format!("{text}.c"), main)
    });
    (scratch, sources)
}

/// Runs both; they must say what they should. Says what the second has compiled.
#[track_caller]
fn both(scratch: &Scratch, sources: &[PathBuf; 2], store: &str) -> u32 {
    let mut compiled = 0;
    for (source, text) in sources.iter().zip(["one\n", "two\n"]) {
        let mut command = hotbed(["run", "--eager", "--timings=json", "--cache-dir"]);
        let got = finish(command.arg(scratch.join(store)).arg(source)).assert_success(text);
        assert_eq!(got.stdout, text, "{}", got.stderr);
        compiled += timing(&got.stderr, "units_compiled").parse::<u32>().unwrap();
    }
    compiled
}

fn images(store: &Path) -> Vec<PathBuf> {
    let mut images: Vec<_> =
        std::fs::read_dir(store.join("images")).unwrap().map(|entry| entry.unwrap().path()).collect();
    images.sort();
    images
}

#[test]
fn entries_that_are_others_or_lead_elsewhere_are_made_anew() {
    let (scratch, sources) = two();
    assert_eq!(both(&scratch, &sources, "store"), 2);
    assert_eq!(both(&scratch, &sources, "store"), 0);
    let store = scratch.join("store");
    let [one, other] = &images(&store)[..] else { panic!("{:?}", images(&store)) };
    // Sound images, each under the other's name.
    let aside = scratch.join("aside");
    for (from, to) in [(one, &aside), (other, one), (&aside, other)] {
        std::fs::rename(from, to).unwrap();
    }
    assert_eq!(both(&scratch, &sources, "store"), 2);
    assert_eq!(both(&scratch, &sources, "store"), 0);
    // The right image, where somebody else may write.
    std::fs::rename(one, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, one).unwrap();
    assert_eq!(both(&scratch, &sources, "store"), 1);
    assert!(!std::fs::symlink_metadata(one).unwrap().is_symlink(), "the link is still there");
    assert_eq!(both(&scratch, &sources, "store"), 0);
    // The same of what leads to it.
    for manifest in std::fs::read_dir(store.join("manifests")).unwrap() {
        let manifest = manifest.unwrap().path();
        let moved = scratch.join(manifest.file_name().unwrap());
        std::fs::rename(&manifest, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &manifest).unwrap();
    }
    assert_eq!(both(&scratch, &sources, "store"), 2);
    assert_eq!(both(&scratch, &sources, "store"), 0);
}

#[test]
fn an_image_that_is_exchanged_while_it_runs_goes_on() {
    let scratch = Scratch::new("store-faults-exchanged");
    // Functions that were not touched yet lie on pages that were not read yet.
    let mut text = String::from("#include <stdio.h>\n#include <unistd.h>\n");
    for at in 0..400 {
        text += &format!("int f{at}(int x) {{ for (int i = 0; i < {at}; i++) x = x * 3 + i; return x; }}\n");
    }
    text += "int main(void) { puts(\"begun\"); fflush(stdout); getchar(); int x = 0;\n";
    text += &(0..400).map(|at| format!("x += f{at}(x);\n")).collect::<String>();
    text += "printf(\"%d\\n\", x); return 0; }\n";
    let source = scratch.write("long.c", text);
    let command = || {
        let mut command = hotbed(["run", "--eager", "--cache-dir"]);
        command.arg(scratch.join("store")).arg(&source);
        command
    };
    let want = finish(&mut command()).assert_success("undisturbed").stdout;
    let mut running = command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = std::io::BufReader::new(running.stdout.take().unwrap());
    let mut got = String::new();
    std::io::BufRead::read_line(&mut out, &mut got).unwrap();
    // Everything goes, and something else comes in its place.
    let names = images(&scratch.join("store"));
    let mut clear = hotbed(["cache", "clear", "--cache-dir"]);
    finish(clear.arg(scratch.join("store"))).assert_success("clear");
    names.iter().for_each(|image| std::fs::write(image, "something else").unwrap());
    drop(running.stdin.take());
    std::io::Read::read_to_string(&mut out, &mut got).unwrap();
    assert!(running.wait().unwrap().success());
    assert_eq!(got, want);
    assert_eq!(finish(&mut command()).assert_success("afterwards").stdout, want);
}

#[test]
fn a_store_without_permission_is_done_without() {
    let bed = Bed::new("forbidden");
    bed.prints("1 0\n", true);
    kept(&bed.store());
    // Root may do everything; immutable files are forbidden to it too, where there are any.
    let protected = |flag: &str| {
        Command::new("chattr")
            .args(["-R", flag])
            .arg(bed.store())
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !protected("+i") {
        return;
    }
    let _again = Again(bed.store());
    bed.prints("1 0\n", false);
    bed.scratch.write("second/value.h", "#define VALUE 7\n");
    let got = bed.run().assert_success("a store that nobody may write to");
    assert_eq!(got.stdout, "7 0\n");
    assert_eq!(got.stderr.matches("warning: ").count(), 1, "{}", got.stderr);
}

/// Makes a folder ordinary again.
struct Again(PathBuf);

impl Drop for Again {
    fn drop(&mut self) {
        let _ = Command::new("chattr").args(["-R", "-i"]).arg(&self.0).status();
    }
}
