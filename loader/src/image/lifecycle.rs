//! Beginning and end of an image's code: constructors, destructors.

use super::ImageError;
use super::headers::Range;
use super::map::Mapped;
use crate::sys::arguments::ProgramArguments;
use crate::sys::exit::{at_exit, finalize};
use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Constructor = unsafe extern "C-unwind" fn(c_int, *const *const c_char, *const *const c_char);
type Destructor = unsafe extern "C" fn();

/// The functions to call at the beginning, in order, and at the end of the process.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    constructors: Vec<usize>,
    end: Option<(usize, Arc<EndState>)>,
}

/// The functions to call at the end, in order, once.
#[derive(Debug)]
pub(crate) struct End {
    handle: usize,
    /// Nothing, where there are no destructors.
    state: Option<Arc<EndState>>,
}

#[derive(Debug)]
struct EndState {
    destructors: Vec<usize>,
    done: AtomicBool,
}

/// Finds the constructors and destructors of a relocated image.
///
/// # Safety
/// Nobody writes to the image meanwhile.
pub(crate) unsafe fn find(mapped: &Mapped) -> Result<(Beginning, End), ImageError> {
    let dynamic = &mapped.dynamic;
    let arrays = [dynamic.preinit_array, dynamic.init_array, dynamic.fini_array];
    if arrays.iter().all(Option::is_none) && dynamic.init.is_none() && dynamic.fini.is_none() {
        return Ok((Beginning::default(), End { handle: mapped.handle, state: None }));
    }
    // SAFETY: the caller's promise.
    let array = |range| unsafe { array(mapped, range) };
    let [first, constructors, destructors] = arrays.map(array);
    let (first, constructors, destructors) = (first?, constructors?, destructors?);
    let at = |address: Option<u64>| address.map(|address| mapped.place.at(address));
    let beginning: Vec<usize> = first.into_iter().chain(at(dynamic.init)).chain(constructors).collect();
    let end: Vec<usize> = destructors.into_iter().rev().chain(at(dynamic.fini)).collect();
    if beginning.iter().chain(&end).any(|function| !mapped.place.is_code(*function)) {
        return Err(ImageError::damaged("a constructor or destructor lies outside of its code"));
    }
    let state =
        (!end.is_empty()).then(|| Arc::new(EndState { destructors: end, done: AtomicBool::new(false) }));
    let handle = mapped.handle;
    let registered = state.clone().map(|state| (handle, state));
    Ok((Beginning { constructors: beginning, end: registered }, End { handle, state }))
}

/// # Safety
/// As for [`find`].
unsafe fn array(mapped: &Mapped, range: Option<Range>) -> Result<Vec<usize>, ImageError> {
    let Some(range) = range else { return Ok(Vec::new()) };
    // SAFETY: the caller's promise.
    let values = unsafe { mapped.place.copy::<u64>(range.address, (range.size / 8) as usize) };
    let values = values.ok_or_else(|| ImageError::truncated("the array of constructors or destructors"))?;
    Ok(values.into_iter().map(|value| value as usize).collect())
}

impl Beginning {
    /// Arranges for the destructors at the end of the process, to be called after everything that the image itself
    /// registers from now on.
    ///
    /// # Errors
    /// When there is no memory for it.
    ///
    /// # Safety
    /// The image stays mapped as long as its [`End`], or until the process ends.
    pub(crate) unsafe fn register(&self) -> io::Result<()> {
        let Some((handle, state)) = &self.end else { return Ok(()) };
        let state = Arc::as_ptr(state).cast_mut().cast();
        // SAFETY: the state is shared and stays until `End::finish` has taken the entry out of glibc's list.
        unsafe { at_exit(run, state, *handle) }
    }

    /// Calls the constructors.
    ///
    /// # Safety
    /// The image is bound, and calling its code is what the user wants.
    pub(crate) unsafe fn run(self, arguments: &ProgramArguments) {
        let environment = arguments.environment();
        for function in self.constructors {
            // SAFETY: `find` has checked that it lies in the image's code; what it does is the user's business.
            unsafe {
                let function: Constructor = std::mem::transmute::<usize, Constructor>(function);
                function(arguments.count, arguments.values, environment);
            }
        }
    }
}

impl End {
    /// Sees to it that no destructor is called: no constructor was.
    pub(crate) fn cancel(&self) {
        if let Some(state) = &self.state {
            state.done.store(true, Ordering::Release);
        }
    }

    /// Calls what the image has registered with `atexit` and the like, then the destructors.
    ///
    /// # Safety
    /// The image is still mapped, and calling its code is what the user wants.
    pub(crate) unsafe fn finish(&self) {
        // SAFETY: the caller's promise.
        unsafe { finalize(self.handle) };
    }
}

unsafe extern "C" fn run(state: *mut c_void) {
    // SAFETY: `Beginning::register` passes its state, which lives until this has run.
    let state = unsafe { &*state.cast::<EndState>() };
    if state.done.swap(true, Ordering::AcqRel) {
        return;
    }
    for function in &state.destructors {
        // SAFETY: `find` has checked that it lies in the image's code.
        unsafe {
            let function: Destructor = std::mem::transmute::<usize, Destructor>(*function);
            function();
        }
    }
}
