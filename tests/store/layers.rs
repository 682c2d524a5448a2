//! Stores of others, below one's own: used, not written to, and not trusted blindly.

use super::Bed;
use crate::support::{Outcome, finish, hotbed, timing};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that a store of others has, as images that are made whole.
fn shared(name: &str) -> (Bed, PathBuf) {
    let bed = Bed::new(name);
    finish(bed.command(&bed.store()).arg("--eager")).assert_success("filling it");
    let shared = bed.scratch.join("shared");
    std::fs::rename(bed.store(), &shared).unwrap();
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o755)).unwrap();
    (bed, shared)
}

fn with_layer(bed: &Bed, layer: &Path) -> Command {
    let mut command = bed.command(&bed.store());
    command.arg("--eager").arg("--cache-layer").arg(layer);
    command
}

fn state(folder: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(state(&path));
        }
        all.push((path.clone(), path.metadata().unwrap().modified().unwrap()));
    }
    all.sort();
    all
}

#[track_caller]
fn check(got: Outcome, output: &str, compiled: &str) -> String {
    let got = got.assert_success("with a layer");
    assert_eq!(
        (got.stdout.as_str(), timing(&got.stderr, "units_compiled").as_str()),
        (output, compiled),
        "{}",
        got.stderr
    );
    got.stderr
}

#[test]
fn a_layer_is_used_and_left_alone() {
    let (bed, shared) = shared("layer");
    let before = state(&shared);
    let said = check(finish(&mut with_layer(&bed, &shared)), "1 0\n", "0");
    assert!(said.contains(shared.to_str().unwrap()), "{said}");
    assert!(!bed.store().join("images").exists());
    // By the environment.
    let mut command = bed.command(&bed.store());
    let layers = format!("/nowhere:{}", shared.display());
    let said = check(finish(command.arg("--eager").env("HOTBED_CACHE_LAYERS", layers)), "1 0\n", "0");
    assert!(said.contains("/nowhere") && said.contains("warning"), "{said}");
    // What it has no answer to goes into the own store.
    bed.scratch.write("second/value.h", "#define VALUE 2\n");
    let said = check(finish(&mut with_layer(&bed, &shared)), "2 0\n", "1");
    assert!(said.contains("value.h has changed"), "{said}");
    check(finish(&mut with_layer(&bed, &shared)), "2 0\n", "0");
    assert!(bed.store().join("images").exists());
    assert_eq!(state(&shared), before);
    let mut without = with_layer(&bed, &shared);
    check(finish(without.arg("--no-cache")), "2 0\n", "1");
}

#[test]
fn a_layer_that_is_damaged_or_open_to_others_is_not_used() {
    let (bed, shared) = shared("layer-damaged");
    let image = std::fs::read_dir(shared.join("images")).unwrap().next().unwrap().unwrap().path();
    let sound = std::fs::read(&image).unwrap();
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    std::fs::write(&image, &damaged).unwrap();
    let said = check(finish(&mut with_layer(&bed, &shared)), "1 0\n", "1");
    assert!(said.contains("damaged"), "{said}");
    std::fs::remove_dir_all(bed.store()).unwrap();
    std::fs::write(&image, &sound).unwrap();
    check(finish(&mut with_layer(&bed, &shared)), "1 0\n", "0");
    for folder in [shared.join("images"), shared.clone()] {
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        let _ = std::fs::remove_dir_all(bed.store());
        let said = check(finish(&mut with_layer(&bed, &shared)), "1 0\n", "1");
        assert!(said.contains("warning") && said.contains("other users may write to it"), "{said}");
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn functions_of_an_image_in_a_layer_are_compiled_and_not_kept() {
    let bed = Bed::new("layer-lazy");
    let source = bed.scratch.write("lazy.c", "int main(int count, char **all) { return count - 1; }");
    let run = |store: &str, layers: &[&str]| {
        let mut command = hotbed(["run", "--timings=json", "--cache-dir"]);
        command.arg(bed.scratch.join(store));
        for layer in layers {
            command.arg("--cache-layer").arg(bed.scratch.join(layer));
        }
        finish(command.arg("-DX").arg(&source)).assert_success("a lazy image").stderr
    };
    // No function is compiled before it is called, so what a trace run has made has none.
    let mut traced = hotbed(["run", "--cache-dir"]);
    traced
        .arg(bed.scratch.join("shared"))
        .arg("--trace")
        .arg(bed.scratch.join("trace"))
        .arg("-DX")
        .arg(&source);
    finish(&mut traced).assert_success("a traced run");
    for _ in 0..2 {
        let said = run("own", &["shared"]);
        assert_eq!(
            (timing(&said, "units_compiled"), timing(&said, "functions_compiled")),
            ("0".into(), "1".into())
        );
        assert!(!bed.scratch.join("own/keeping").exists() && !bed.scratch.join("shared/keeping").exists());
    }
}
