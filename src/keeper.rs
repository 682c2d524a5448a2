//! The keeper's side: what the `hotbed keep` process does, which outlives the one that has started it. Since nobody waits for it, it
//! makes room in the store too.

use crate::back_end::open_back_end;
use crate::lazy::{Grown, Order};
use crate::worker::{on_compile_stack, settle_for};
use hotbed_loader::boundary::BackEnd;
use hotbed_loader::store::Store;
use hotbed_loader::sys::files::{SETTLED_AFTER, contents};
use hotbed_loader::sys::processes::settle_in;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The clock that stamps files lags behind by a tick at most.
const MOMENT: Duration = Duration::from_millis(50);

/// Does what the order in the file `descriptor` says.
///
/// To be called once, by a process that does nothing else: it changes signal handlers, the working directory and the
/// environment.
///
/// # Errors
/// When there is no such order, no back end or no store, or an image cannot be made; those before it are kept then.
pub fn serve(descriptor: i32) -> io::Result<()> {
    if descriptor < 3 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the descriptor of an order"));
    }
    settle_in();
    // SAFETY: whoever has started this process put the file there for it, and nothing else here knows of it.
    let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let order = Order::decode(&contents(file.as_fd())?).map_err(io::Error::other)?;
    drop(file);
    on_compile_stack(move || carry_out(&order))
}

fn carry_out(order: &Order) -> io::Result<()> {
    let plugin = Some(order.plugin.as_path()).filter(|path| !path.as_os_str().is_empty());
    let back_end = open_back_end(plugin.map(Path::new)).map_err(io::Error::other)?;
    let store = Store::open(&order.store).map_err(io::Error::other)?.with_budget(order.budget);
    let kept = order.images.iter().try_for_each(|grown| keep(&*back_end, &store, grown));
    order.images.iter().for_each(|grown| store.end_to_replace(&grown.checksum));
    if kept.is_ok() {
        // The first to use an entry reads all of it, unless that has happened when its files were at rest.
        thread::sleep(SETTLED_AFTER + MOMENT);
        for grown in &order.images {
            drop(store.find(&grown.key(), &grown.request.directory));
        }
    }
    // Nobody waits for this process.
    store.tend();
    kept
}

fn keep(back_end: &dyn BackEnd, store: &Store, grown: &Grown) -> io::Result<()> {
    settle_for(&grown.request).map_err(io::Error::other)?;
    let image = store.image(&grown.checksum).map_err(|miss| io::Error::other(miss.to_string()))?;
    let image = back_end.keep(&grown.request, &image, &grown.bodies).map_err(io::Error::other)?;
    store.replace(&grown.key(), &grown.checksum, image.as_fd()).map_err(io::Error::other)?;
    Ok(())
}
