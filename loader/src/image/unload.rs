//! Unloading: taking images out of their namespace, so that they end when their owner lets go of them.
//!
//! That is refused while somebody outside is bound to one, or while another thread has destructors of its `thread_local`
//! objects to call. By force it is not: whoever is bound is severed first (`sever`), destructors that other threads would
//! have called are never called, and the images' addresses stay taken for good, so that a pointer to what was there faults
//! and never leads to something else.

use super::Image;
use super::cycle::split;
use super::sever::Severed;
use super::tls::ends;
use crate::stand_ins;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long temporary holders are waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// Why an image cannot be unloaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// Which image: its place among those that were to be unloaded.
    pub image: usize,
    /// Names of other images that are bound to it.
    pub images: Vec<String>,
    /// Names of the libraries that are bound to it.
    pub libraries: Vec<String>,
    /// How many threads still have destructors of its `thread_local` objects to call. The calling thread is one of them
    /// only if it is in such a destructor at the moment.
    pub threads: usize,
}

/// Waits until something may have changed that stood in the way, for `limit` at most. What threads have to call is noticed
/// at once; whatever else it was, the caller looks again.
pub fn wait_for_change(limit: Duration) {
    ends::wait_for_change(limit.min(Duration::from_millis(10)));
}

impl Image {
    /// Takes the image out of its namespace, so that no image can be bound to it any more, unless something stands in the
    /// way: then it stays, and the answer is `false`. Afterwards it ends where its owner lets go of it; other threads,
    /// which may be resolving symbols at the moment, are waited for.
    pub fn retire(self: &Arc<Self>) -> bool {
        Self::retire_together(std::slice::from_ref(self)).is_ok()
    }

    /// The same for several images of one loader, which may be bound to each other.
    ///
    /// # Errors
    /// What stands in the way; then nothing has changed.
    pub fn retire_together(images: &[Arc<Self>]) -> Result<(), Obstacles> {
        let Some(first) = images.first() else { return Ok(()) };
        let among: HashSet<*const Self> = images.iter().map(Arc::as_ptr).collect();
        // Partners must not be let go of under the lock.
        let partners: Vec<_> = images.iter().map(|image| image.partners()).collect();
        let blocked = {
            // Who binds holds the lock from the look-up to the moment when it is counted.
            let _binding = first.space.common.binding.lock();
            let bound = uses_within(images);
            let blocked = images.iter().zip(&partners).position(|(image, partners)| {
                let within = bound.get(&Arc::as_ptr(image)).copied().unwrap_or(0);
                image.binders.load(Ordering::Relaxed) > within
                    || !image.offered_to.is_empty()
                    || !partners.iter().all(|partner| among.contains(&Arc::as_ptr(partner)))
                    || image.threads_at_end() > 0
            });
            if blocked.is_none() {
                images.iter().for_each(|image| image.space.remove_locked(image));
            }
            blocked
        };
        drop(partners);
        match blocked {
            Some(at) => Err(images[at].obstacles(at, &among)),
            None => {
                wait_for_holders(images);
                Ok(())
            }
        }
    }

    /// Takes images of one loader out of their namespaces whoever is bound to them. What these have imported is led to
    /// traps: calling a function of an unloaded image, or using a thread-local variable of it, ends the process with a
    /// message that names both, and its variables lie where nobody has access. Of its own accord nothing of the images
    /// runs any more once their owner has let go of them, on the calling thread, and nothing else will ever be found at
    /// their addresses.
    ///
    /// No thread may be in code of the images, nor call it while this is at work. Destructors of `thread_local` objects of other
    /// threads are never called.
    ///
    /// # Errors
    /// What the system says; then the images are still loaded.
    pub fn retire_by_force(images: &[Arc<Self>]) -> io::Result<()> {
        let Some(first) = images.first() else { return Ok(()) };
        let gone: HashSet<*const Self> = images.iter().map(Arc::as_ptr).collect();
        // Whatever is let go of must not be so under the lock.
        let mut seen: Vec<Arc<Self>> = Vec::new();
        let mut released: Vec<Arc<Self>> = Vec::new();
        let mut users: HashSet<*const Self> = HashSet::new();
        let cycles = loop {
            let binding = first.space.common.binding.lock();
            let from = seen.len();
            seen.extend(first.loader.images());
            let live = || {
                seen[from..]
                    .iter()
                    .filter(|image| !gone.contains(&Arc::as_ptr(image)) && image.uses_any(&gone))
            };
            let new: Vec<_> = live().filter(|user| users.insert(Arc::as_ptr(user))).cloned().collect();
            if !new.is_empty() {
                drop(binding);
                // One that another thread is about to start is not bound to its end.
                for user in &new {
                    user.wait();
                }
                seen.extend(new);
                continue;
            }
            let severed: Vec<_> = live().map(|user| Severed::new(user, images)).collect::<io::Result<_>>()?;
            for one in severed {
                // SAFETY: what the images are bound to goes, as the caller wants.
                unsafe { one.apply()? };
            }
            for user in live() {
                let mut used = user.body.images.lock();
                released.extend(used.extract_if(.., |image| gone.contains(&Arc::as_ptr(image))));
                user.shared.forget(|value| images.iter().any(|image| image.has_value(value)));
            }
            for image in &released {
                image.binders.fetch_sub(1, Ordering::Relaxed);
            }
            images.iter().for_each(|image| image.space.remove_locked(image));
            break split(images);
        };
        for image in images {
            image.body.forced.store(true, Ordering::Release);
            image.offered_to.let_go(image);
            stand_ins::abandon(image);
            if let Some(pending) = &image.body.pending {
                pending.abandon_others();
            }
        }
        drop((seen, released, cycles));
        wait_for_holders(images);
        Ok(())
    }

    /// How many threads have destructors of its thread-local variables to call.
    fn threads_at_end(&self) -> usize {
        self.body.pending.as_ref().map_or(0, ends::Pending::threads)
    }

    /// Whether it is bound to one of `images`.
    fn uses_any(&self, images: &HashSet<*const Self>) -> bool {
        let bound = self.body.images.lock().iter().any(|image| images.contains(&Arc::as_ptr(image)));
        bound || self.has_partner(images)
    }

    fn obstacles(self: &Arc<Self>, at: usize, among: &HashSet<*const Self>) -> Obstacles {
        let own = HashSet::from([Arc::as_ptr(self)]);
        let users = self.loader.images().into_iter().filter(|image| !among.contains(&Arc::as_ptr(image)));
        let users = users.filter(|image| image.uses_any(&own));
        Obstacles {
            image: at,
            images: users.map(|image| image.name().to_owned()).collect(),
            libraries: self.libraries_bound(),
            threads: self.threads_at_end(),
        }
    }
}

/// How many of `images` are bound to each image.
fn uses_within(images: &[Arc<Image>]) -> HashMap<*const Image, usize> {
    let mut counts = HashMap::new();
    for image in images {
        image.body.images.lock().iter().for_each(|used| *counts.entry(Arc::as_ptr(used)).or_default() += 1);
    }
    counts
}

/// Gives those who hold an image for a moment the time to let go of it.
fn wait_for_holders(images: &[Arc<Image>]) {
    let until = Instant::now() + PATIENCE;
    let known = uses_within(images);
    for image in images {
        let known = known.get(&Arc::as_ptr(image)).copied().unwrap_or(0);
        while Arc::strong_count(image) > 1 + known && Instant::now() < until {
            std::thread::yield_now();
        }
    }
}

impl fmt::Display for Obstacles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<&str> = self.images.iter().chain(&self.libraries).map(String::as_str).collect();
        let mut between = "";
        if !users.is_empty() {
            let verb = if users.len() == 1 { "is" } else { "are" };
            write!(f, "{} {verb} bound to it", users.join(", "))?;
            between = ", and ";
        }
        match self.threads {
            0 if users.is_empty() => f.write_str("it is in use"),
            0 => Ok(()),
            1 => write!(f, "{between}1 thread has destructors of its thread_local objects to call"),
            many => write!(f, "{between}{many} threads have destructors of its thread_local objects to call"),
        }
    }
}

#[cfg(test)]
mod tests;
