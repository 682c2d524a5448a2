//! Functions of the host that units may call.

use std::ffi::{c_char, c_void};

/// The address of a function or object of the host, to be given a name with [`crate::Runtime::define`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFunction {
    address: usize,
}

/// Types of functions that C can call: `extern "C" fn` and `unsafe extern "C" fn` of up to twelve arguments.
///
/// A function with references in its type does not implement this, since C knows no lifetimes: use pointers.
pub trait ForeignFunction: Copy + sealed::Sealed {
    /// Where the function is.
    fn address(self) -> usize;
}

mod sealed {
    /// Only this module says what C can call.
    pub trait Sealed {}
}

impl HostFunction {
    /// A function whose type C can call; [`crate::host_fn!`] checks the type.
    pub fn new<F: ForeignFunction>(function: F) -> Self {
        Self { address: function.address() }
    }

    /// Anything at an address: a function, or an object that units refer to as a variable.
    ///
    /// # Safety
    /// There is something at `address` that units may call or access as they declare it, for as long as any unit that was
    /// bound to it is loaded.
    pub unsafe fn from_address(address: usize) -> Self {
        Self { address }
    }

    /// The address.
    pub fn address(self) -> usize {
        self.address
    }
}

impl<F: ForeignFunction> From<F> for HostFunction {
    fn from(function: F) -> Self {
        Self::new(function)
    }
}

macro_rules! foreign {
    ($($argument:ident)*) => {
        foreign!(@ extern "C" fn($($argument),*) -> R; $($argument)*);
        foreign!(@ unsafe extern "C" fn($($argument),*) -> R; $($argument)*);
    };
    (@ $type:ty; $($argument:ident)*) => {
        impl<R $(, $argument)*> sealed::Sealed for $type {}
        impl<R $(, $argument)*> ForeignFunction for $type {
            fn address(self) -> usize {
                self as usize
            }
        }
    };
}

foreign!();
foreign!(A);
foreign!(A B);
foreign!(A B C);
foreign!(A B C D);
foreign!(A B C D E);
foreign!(A B C D E F);
foreign!(A B C D E F G);
foreign!(A B C D E F G H);
foreign!(A B C D E F G H I);
foreign!(A B C D E F G H I J);
foreign!(A B C D E F G H I J K);
foreign!(A B C D E F G H I J K L);

macro_rules! variadic {
    ($type:ty) => {
        impl<R> sealed::Sealed for $type {}
        impl<R> ForeignFunction for $type {
            fn address(self) -> usize {
                self as usize
            }
        }
    };
}

// `printf` and its like, whose first arguments are a format, a stream or a buffer.
variadic!(unsafe extern "C" fn(*const c_char, ...) -> R);
variadic!(unsafe extern "C" fn(*mut c_void, *const c_char, ...) -> R);
variadic!(unsafe extern "C" fn(*mut c_char, usize, *const c_char, ...) -> R);

/// A function of the host, with the type that units declare it with; that it has this type is checked.
///
/// ```
/// use hotbed::host_fn;
/// use std::ffi::c_char;
///
/// extern "C" fn host_log(_text: *const c_char) {}
///
/// let function = host_fn!(host_log as extern "C" fn(*const c_char));
/// assert_ne!(function.address(), 0);
/// ```
#[macro_export]
macro_rules! host_fn {
    ($function:path as $type:ty) => {{
        let function: $type = $function;
        $crate::HostFunction::new(function)
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn safe(a: i32) -> i32 {
        a
    }

    unsafe extern "C" fn raw(_: *const u8, _: f64) {}

    #[test]
    fn functions_have_their_addresses() {
        assert_eq!(host_fn!(safe as extern "C" fn(i32) -> i32).address(), safe as *const () as usize);
        let pointer: unsafe extern "C" fn(*const u8, f64) = raw;
        assert_eq!(HostFunction::from(pointer).address(), raw as *const () as usize);
        assert_eq!(safe(3), 3);
    }
}
