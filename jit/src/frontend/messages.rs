//! The compiler's messages on their way into a reply or a failure.

use crate::shim::{Message, Messages};
use hotbed_loader::boundary::{Diagnostic, Failure, FailureKind, Severity};

/// The messages as the boundary carries them.
pub(crate) fn to_diagnostics(messages: &Messages) -> Vec<Diagnostic> {
    let convert = |message: Message| Diagnostic {
        severity: match message.severity {
            0 => Severity::Note,
            1 => Severity::Remark,
            2 => Severity::Warning,
            _ => Severity::Error,
        },
        file: message.file,
        line: message.line,
        column: message.column,
        message: message.text,
    };
    messages.list().into_iter().map(convert).collect()
}

/// A failure that says `what` could not be done and gives the first error as the reason.
pub(crate) fn failure(kind: FailureKind, what: &str, messages: &Messages) -> Failure {
    let diagnostics = to_diagnostics(messages);
    let reason = match diagnostics.iter().find(|d| d.severity == Severity::Error) {
        Some(d) if d.line > 0 => format!("{}:{}:{}: {}", d.file, d.line, d.column, d.message),
        Some(d) => d.message.clone(),
        None => "no reason was given".to_owned(),
    };
    Failure {
        diagnostics,
        rendered: messages.rendered(),
        ..Failure::new(kind, format!("cannot {what}: {}", reason.trim_end()))
    }
}
