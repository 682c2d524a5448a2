//! Many small images, side by side.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::*;
use crate::image::note::{self, Layout};
use crate::image::registry;
use crate::testing::{Folder, call, call_address, loader};
use crate::{Image, ImageSource, Loader};
use std::num::NonZeroU32;
use std::sync::Arc;

const SHAPE: [&str; 5] = [
    "-Wl,-z,max-page-size=0x100000",
    "-Wl,--no-rosegment",
    "-Wl,-z,norelro",
    "-Wl,-z,noseparate-code",
    "-Wl,-z,lazy",
];

const SOURCE: &str = "#include <stdlib.h>
    static int count, start = 40; static int *place = &start; __thread int own = 3;
    __attribute__((constructor)) static void begin(void) { count = *place + atoi(\"2\"); }
    int next(void) { return count++ + own - 3; } void *where(void) { return &count; }";

/// An image of the shape for arenas.
fn small(folder: &Folder, name: &str, source: &str, flags: &[&str]) -> Vec<u8> {
    let path = folder.image(name, source, &[&SHAPE[..], flags].concat());
    let mut bytes = std::fs::read(path).unwrap();
    let layout = Layout { stride: NonZeroU32::new(STRIDE as u32), ..Layout::default() };
    note::set_layout(&mut bytes, &layout).unwrap();
    note::seal(&mut bytes).unwrap();
    bytes
}

fn load(loader: &Loader, name: &str, bytes: &[u8]) -> Arc<Image> {
    loader.load_image(name, ImageSource::Bytes(bytes)).unwrap()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn what_is_given_back_is_taken_again() {
    let shelf = Shelf::new(STRIDE).unwrap();
    let crowd = Crowd::new(shelf.start(), STRIDE);
    let whole = 0..STRIDE;
    let mut board = Board { shelf, crowd, free: vec![whole], images: 0, closed: false };
    let ranges: Vec<_> = (0..STRIDE / 1024).map(|_| board.take(1024).unwrap()).collect();
    assert_eq!((board.take(GRANULE), board.images), (None, STRIDE / 1024));
    board.give_back(ranges[3].clone());
    board.give_back(ranges[5].clone());
    assert_eq!(board.take(2048), None);
    board.give_back(ranges[4].clone());
    let free = 3072..6144;
    assert_eq!(board.free, [free]);
    assert_eq!(board.take(2048), Some(3072..5120));
    assert_eq!(board.take(1024), Some(5120..6144));
    crowd.leave();
}

#[test]
fn thousands_of_images_take_few_mappings() {
    let folder = Folder::new();
    let bytes = small(&folder, "small.c", SOURCE, &[]);
    let loader = loader();
    let before = mappings();
    let mut images: Vec<_> =
        (0..3000).map(|number| load(&loader, &format!("small{number}"), &bytes)).collect();
    assert!(mappings() < before + 60, "{} and then {}", before, mappings());
    for image in &images {
        assert_eq!(call(image, "next"), 42);
    }
    assert_eq!(call(&images[7], "next"), 43);
    let place = call_address(&images[7], "where");
    assert!(Arc::ptr_eq(&registry::image_at(place).unwrap(), &images[7]));
    let function = images[1234].get("next").unwrap().address;
    assert!(Arc::ptr_eq(&registry::image_at(function).unwrap(), &images[1234]));
    // Every second goes, and others come into the gaps with zeros where there was something.
    let mut number = 0;
    images.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    assert!(registry::image_at(place).is_some(), "number 7 is the eighth");
    let more: Vec<_> = (0..1500).map(|number| load(&loader, &format!("more{number}"), &bytes)).collect();
    assert!(mappings() < before + 60);
    assert!(more.iter().all(|image| call(image, "next") == 42));
    assert_eq!(call(&images[3], "next"), 44, "number 7 was called twice");
    drop(images);
    drop(more);
    assert!(registry::image_at(place).is_none());
}

#[test]
fn exceptions_find_their_way_through_a_shelf() {
    let folder = Folder::new();
    let source = "extern \"C\" void thrower(int);
        extern \"C\" int catcher(void) { try { thrower(5); } catch (int x) { return x; } return 0; }";
    let catcher = small(&folder, "catcher.cpp", source, &["-std=c++17"]);
    let thrower = small(&folder, "thrower.cpp", "extern \"C\" void thrower(int x) { throw x; }", &[]);
    let loader = loader();
    let images: Vec<_> = (0..20).map(|number| load(&loader, &format!("thrower{number}"), &thrower)).collect();
    let image = load(&loader, "catcher", &catcher);
    assert_eq!(call(&image, "catcher"), 5);
    drop((image, images));
}

#[test]
fn after_a_fork_nobody_writes_what_the_other_runs() {
    let folder = Folder::new();
    let one = small(&folder, "one.c", "int number(void) { return 1; }", &[]);
    let two = small(&folder, "two.c", "int number(void) { return 2; }", &[]);
    let loader = loader();
    let kept = load(&loader, "kept", &one);
    let given_back = load(&loader, "given back", &one);
    let address = given_back.get("number").unwrap().address;
    let status = crate::sys::threads::in_child(|| {
        // Where the parent still runs its own.
        drop(given_back.clone());
        let fresh = load(&loader, "fresh", &two);
        let elsewhere = fresh.get("number").unwrap().address != address;
        u8::from(call(&fresh, "number") == 2 && call(&kept, "number") == 1 && elsewhere)
    });
    assert_eq!(status, Some(1));
    drop(given_back);
    let fresh = load(&loader, "fresh", &two);
    assert_ne!(fresh.get("number").unwrap().address, address, "the child may run what is there");
    assert_eq!((call(&fresh, "number"), call(&kept, "number")), (2, 1));
}

#[test]
fn by_force_nothing_else_comes_to_its_place() {
    let folder = Folder::new();
    let owner = small(&folder, "owner.c", "int value = 4; int number(void) { return 1; }", &[]);
    let user = small(
        &folder,
        "user.c",
        "int number(void); extern int value; int (*pointer)(void) = number; int *place = &value; int get(void) { return *place + pointer() + number(); }
         void *function(void) { return (void *)pointer; } void *data(void) { return place; }",
        &["-Wl,-z,undefs"],
    );
    let loader = loader();
    let owner_image = load(&loader, "owner", &owner);
    let user = load(&loader, "user", &user);
    assert_eq!(call(&user, "get"), 6);
    let (address, place) =
        (owner_image.get("number").unwrap().address, owner_image.get("value").unwrap().address);
    let is_its = |at: usize| owner_image.mapped().memory.holds(at);
    assert!(is_its(call_address(&user, "function")) && is_its(call_address(&user, "data")));
    Image::retire_by_force(std::slice::from_ref(&owner_image)).unwrap();
    assert!(!is_its(call_address(&user, "function")) && !is_its(call_address(&user, "data")));
    let nowhere = call_address(&user, "data");
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&nowhere)
    });
    assert!(line.unwrap().contains("---p"), "{line:?}");
    let shared = SHELVES.lock().iter().any(|board| board.closed && board.shelf.start() <= address);
    drop(owner_image);
    // Other tests fork, and then the code is left as it is.
    if !shared {
        // SAFETY: an arena's code stays readable.
        let code = unsafe { *(address as *const u8) };
        assert!(code == 0xcc || SHELVES.lock().iter().any(|board| board.closed), "{code:#x}");
    }
    let more: Vec<_> = (0..200).map(|number| load(&loader, &format!("more{number}"), &owner)).collect();
    for image in &more {
        assert_ne!(image.get("number").unwrap().address, address);
        assert_ne!(image.get("value").unwrap().address, place);
    }
}
