#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::*;
use crate::session::tests::FORKS;
use crate::session::tests::forks::in_child;

const REGION: usize = 4 << 20;

fn wanted(code: usize, constants: usize, data: usize) -> Place {
    Place {
        code_size: code as u64,
        code_alignment: 16,
        constants_size: constants as u64,
        constants_alignment: 8,
        data_size: data as u64,
        data_alignment: 8,
        ..Place::default()
    }
}

fn taken(arena: &Arena, code: usize, constants: usize, data: usize) -> Option<Place> {
    let mut place = wanted(code, constants, data);
    arena.take(&mut place).map(|()| place)
}

fn byte(address: usize) -> u8 {
    // SAFETY: the tests read places that they were given.
    unsafe { (address as *const u8).read_volatile() }
}

fn write(writer: u64, value: u8, size: usize) {
    // SAFETY: the tests write to places that they were given.
    unsafe { (writer as *mut u8).write_bytes(value, size) };
}

#[test]
fn places_lie_side_by_side() {
    let _no_forks = FORKS.read();
    let arena = Arena::with_region(REGION, None).unwrap();
    let places: Vec<_> = (0..100).map(|_| taken(&arena, 40, 24, 8).unwrap()).collect();
    for pair in places.windows(2) {
        assert_eq!(pair[1].code - pair[0].code, 64, "two granules");
        assert_eq!(pair[1].constants - pair[0].constants, 24);
        assert_eq!(pair[1].data - pair[0].data, 8);
    }
    let only_data = taken(&arena, 0, 0, 8).unwrap();
    assert_eq!((only_data.code, only_data.constants, only_data.piece), (0, 0, 0));
}

#[test]
fn what_does_not_fit_is_refused_and_takes_nothing() {
    let _no_forks = FORKS.read();
    let arena = Arena::with_region(REGION, None).unwrap();
    for (code, constants, data) in [
        (REGION + 1, 1, 8),
        (1, REGION + 1, 8),
        (1, 1, REGION + 1),
        (usize::MAX >> 1, 0, 8),
        (0, usize::MAX >> 1, 8),
    ] {
        assert!(taken(&arena, code, constants, data).is_none(), "{code} {constants} {data}");
    }
    // All of it is still there.
    let mut whole = Vec::new();
    while let Some(place) = taken(&arena, 1 << 16, 1 << 16, 1 << 16) {
        whole.push(place);
    }
    assert!(whole.len() >= REGION / (1 << 16) - 1, "{}", whole.len());
    let first = whole[0];
    for place in &mut whole {
        arena.give_back(place);
    }
    assert_eq!(taken(&arena, 1 << 16, 1 << 16, 1 << 16).map(|place| place.code), Some(first.code));
}

#[test]
fn free_memory_is_zero_and_free_code_traps() {
    let _no_forks = FORKS.read();
    let arena = Arena::with_region(REGION, None).unwrap();
    let _neighbour = taken(&arena, 32, 32, 32).unwrap();
    let mut place = taken(&arena, 64, 64, 64).unwrap();
    write(place.code_writer, 0x90, 64);
    write(place.constants_writer, 1, 64);
    write(place.data, 2, 64);
    arena.publish(&mut place, None);
    let [code, constants, data] = [place.code, place.constants, place.data].map(|at| at as usize);
    assert_eq!([code, constants, data].map(byte), [0x90, 1, 2]);
    arena.give_back(&mut place);
    assert_eq!([code, constants, data].map(byte), [BREAKPOINT, 0, 0]);
}

#[test]
fn after_a_fork_nothing_is_put_where_the_other_process_reads() {
    let _forks = FORKS.write();
    let arena = Arena::with_region(REGION, None).unwrap();
    let mut before = taken(&arena, 32, 32, 32).unwrap();
    write(before.code_writer, 0x90, 32);
    arena.publish(&mut before, None);
    let child = in_child(|| {
        arena.give_back(&mut before.clone());
        let place = taken(&arena, 32, 32, 32).unwrap();
        write(place.code_writer, 0xaa, 32);
        i32::from(byte(place.code as usize) == 0xaa && place.code > before.code)
    });
    assert_eq!((child, byte(before.code as usize)), (1, 0x90));
    let mut after = taken(&arena, 32, 32, 32).unwrap();
    assert_eq!(byte(after.code as usize), 0, "the child's is elsewhere, at the same address");
    assert_eq!(page_down(after.code as usize), after.code as usize, "in a piece that begins anew");
    write(after.code_writer, 0xbb, 32);
    arena.publish(&mut after, None);
    arena.give_back(&mut before);
    assert_eq!(byte(before.code as usize), 0x90, "a child may run it");
    assert_eq!(taken(&arena, 32, 32, 32).unwrap().code, after.code + 32);
}

#[test]
fn many_forks_leave_most_of_the_addresses() {
    let _forks = FORKS.write();
    let arena = Arena::with_region(REGION, None).unwrap();
    for _ in 0..20 {
        let mut place = taken(&arena, 32, 32, 32).unwrap();
        arena.publish(&mut place, None);
        assert_eq!(in_child(|| 0), 0);
    }
    assert!(taken(&arena, REGION / 2, 32, 32).is_some());
    assert!(arena.state.lock().pieces.iter().filter(|piece| piece.writer.is_some()).count() <= 1);
}
