//! Loading without running anything: for whoever wants to know whether images are sound before they are needed.

use super::{Loader, LoaderOptions, Member};
use crate::cpu::CpuFeatures;
use crate::error::LoadError;
use crate::image::bind::{self, Plan};
use crate::image::check::check;
use crate::image::{ImageError, ImageSource};
use crate::layers::readers::Section;
use crate::layers::{Held, Layers};

impl Loader {
    /// Does to images everything that loading them together would do short of running their code, and lets go of them again:
    /// maps them, reads all their tables, resolves what they and the process have between them, relocates. Nobody else
    /// sees them, no library is opened for them, and symbols may be missing. Whether checksums hold is for the caller to see to.
    ///
    /// # Errors
    /// When one cannot be read, is no image, or is damaged.
    pub fn dry_run(sources: &[(&str, ImageSource<'_>)]) -> Result<(), LoadError> {
        // What does not run may be for any processor.
        let options = LoaderOptions {
            uncompiled_functions: true,
            cpu: Some(CpuFeatures::ALL),
            ..LoaderOptions::default()
        };
        let loader = Self::new(options);
        let members = sources.iter().map(|(name, source)| loader.map(name, *source));
        let members: Vec<Member> = members.collect::<Result<_, _>>()?;
        let damaged =
            |member: &Member, source: ImageError| LoadError::Image { unit: member.name.to_string(), source };
        let (space, view, held) = (&loader.0.space, loader.0.common.process.view(), Held::default());
        let mut plans: Vec<Plan> = Vec::with_capacity(members.len());
        for (position, member) in members.iter().enumerate() {
            let binding = loader.0.common.binding.lock();
            let section = Section::under(&binding);
            let layers = Layers::new(space, &loader.0.host, &view, (&members, position), &held, section);
            let plan = plans.push_mut(Plan::default());
            bind::resolve(&member.mapped, member.module(), &layers, None, plan)
                .map_err(|source| damaged(member, source))?;
        }
        for (member, plan) in members.iter().zip(&plans) {
            // SAFETY: mapped just now, nobody else has seen it, and it goes without having run.
            unsafe {
                bind::apply(&member.mapped, member.module(), plan, true)
                    .and_then(|_| check(&member.mapped, member.module()))
                    .map_err(|source| damaged(member, source))?;
            }
        }
        Ok(())
    }

    /// Maps, resolves and relocates an image and makes it visible to others, and calls none of its code, neither then
    /// nor when it is dropped: for tests and fuzzers that give the loader damaged images.
    ///
    /// # Errors
    /// As for [`Loader::load_image`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn bind_only(
        &self,
        name: &str,
        source: ImageSource<'_>,
    ) -> Result<std::sync::Arc<crate::Image>, LoadError> {
        let prepared = self.prepare(None, &[(name, source)], false)?;
        let mut images = prepared.into_iter().map(|one| one.image);
        images.next().ok_or_else(|| LoadError::Uninitialised { unit: name.to_owned() })
    }
}
