//! Which library of the system has a symbol: our index on disk against LLVM's `LibraryResolver` over the same folders. Neither
//! opens the library.

use crate::Result;
use crate::context::Context;
use crate::measure::{Turns, timed};
use crate::peers::library_resolver::{Folders, LibraryResolver};
use crate::row::{Outcome, Row, Unit};
use crate::side::Side;
use hotbed_loader::on_demand::{Answer, OnDemand};
use std::ffi::{CStr, CString};
use std::path::PathBuf;

/// The first question of a process.
pub(super) const AUTOLOAD_HIT: Row = Row {
    id: "loader.autoload-hit",
    what: "a new process opens the index on disk, sees that it is fresh and asks it for the library that has crc32",
    peer: "a new process sets a LibraryResolver of LLVM up over the same folders and asks it for that library",
    unit: Unit::Microseconds,
    run: hit,
};

/// A question that nobody has the answer to.
pub(super) const AUTOLOAD_MISS: Row = Row {
    id: "loader.autoload-miss",
    what: "a name that no library has: see that the index, which is mapped, is fresh, and ask it",
    peer: "the same name and a LibraryResolver of LLVM over the same folders, which has seen all libraries before",
    unit: Unit::Microseconds,
    run: miss,
};

/// Our side of [`AUTOLOAD_HIT`].
pub(super) const OUR_HIT: Side = Side { id: "loader.autoload-hit.ours", work: our_hit };
/// The peer's side.
pub(super) const PEER_HIT: Side = Side { id: "loader.autoload-hit.peer", work: peer_hit };

/// In zlib, which LLVM needs, and in no other library as a rule.
const SYMBOL: &CStr = c"crc32";

fn on_demand(context: &Context) -> OnDemand {
    OnDemand::new(Some(&context.scratch_path("on-demand")))
}

fn hit(context: &Context) -> Result<Outcome> {
    // Writes the index.
    let (ours, others) =
        ours(&on_demand(context), SYMBOL)?.ok_or("no library has crc32: is there a zlib?")?;
    let theirs = peer(context)?.find(SYMBOL)?.ok_or("the peer does not find crc32")?;
    if ours != theirs && !others.contains(&theirs) {
        return Err(format!("crc32: {} here, {} there", ours.display(), theirs.display()).into());
    }
    Turns::PROCESSES.compare_figures(|| OUR_HIT.figure(context, &[]), || PEER_HIT.figure(context, &[]))
}

/// Microseconds from nothing to the answer.
fn our_hit(context: &Context, _: &[String]) -> Result<Vec<f64>> {
    let directory = context.scratch_path("on-demand");
    let (time, (on_demand, found)) = timed(|| {
        let on_demand = OnDemand::new(Some(&directory));
        let found = ours(&on_demand, SYMBOL)?;
        Ok((on_demand, found))
    })?;
    if found.is_none() || on_demand.libraries_read() != 0 {
        return Err("the index on disk did not serve".into());
    }
    Ok(vec![time.as_secs_f64() * 1e6])
}

/// The same for the peer; where it has to look is known before the clock starts.
fn peer_hit(context: &Context, _: &[String]) -> Result<Vec<f64>> {
    let folders = Folders::new(&on_demand(context).folders())?;
    let (time, (_resolver, found)) = timed(|| {
        let resolver = LibraryResolver::new(&folders)?;
        let found = resolver.find(SYMBOL)?;
        Ok((resolver, found))
    })?;
    found.ok_or("the peer does not find crc32")?;
    Ok(vec![time.as_secs_f64() * 1e6])
}

fn miss(context: &Context) -> Result<Outcome> {
    let on_demand = on_demand(context);
    let resolver = peer(context)?;
    let (mut our_turn, mut peer_turn) = (0, 0);
    let name = |turn: &mut usize| {
        *turn += 1;
        CString::new(format!("no_library_has_this_{turn}"))
    };
    // Both have read what they read before the first answer.
    if ours(&on_demand, SYMBOL)?.is_none() || resolver.find(c"no_library_has_this")?.is_some() {
        return Err("what is there is missing, or what is missing is there".into());
    }
    let first = on_demand.libraries_read();
    let outcome = Turns::QUICK.compare(
        Unit::Microseconds,
        || {
            let name = name(&mut our_turn)?;
            let (time, found) = timed(|| ours(&on_demand, &name))?;
            if found.is_some() { Err("a library has it".into()) } else { Ok(time) }
        },
        || {
            let name = name(&mut peer_turn)?;
            let (time, found) = timed(|| resolver.find(&name))?;
            if found.is_some() { Err("a library has it".into()) } else { Ok(time) }
        },
    )?;
    if on_demand.libraries_read() != first {
        return Err("libraries changed meanwhile".into());
    }
    Ok(outcome)
}

/// Where `symbol` is, and where else.
fn ours(on_demand: &OnDemand, symbol: &CStr) -> Result<Option<(PathBuf, Vec<PathBuf>)>> {
    match on_demand.find(symbol.to_bytes(), None) {
        Answer::Found { library, others } => Ok(Some((library, others))),
        Answer::Nobody => Ok(None),
        Answer::Refused { interposer } => Err(format!("only {} has it", interposer.display()).into()),
    }
}

/// The peer, new.
fn peer(context: &Context) -> Result<LibraryResolver> {
    LibraryResolver::new(&Folders::new(&on_demand(context).folders())?)
}
