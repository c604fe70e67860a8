//! The steps of a trace, and which comes after which. Pure.
//!
//! ```text
//! a reading:   seal ─▶ admit(gateway) ─▶ hand up(gateway) ─▶ append(gateway) ─▶ ingest
//! an update:   permit ─┬─▶ image(gateway)
//!                      └─▶ check in(gateway, end) ─▶ report(gateway, end)
//! ```
//!
//! A message that went by two gateways has both ways in its trace, and one end: history has it once.

use model::GatewayId;
use model::manifest::InstallEnd;

/// Where a trace passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// On the device, by its own signed word, as its gateway read it: from the sealing to the arrival.
    Seal,
    /// From the arrival at a gateway to the PUBACK.
    Admit { gateway: &'a GatewayId },
    /// From the batch that the gateway put it into to control's verdict.
    HandUp { gateway: &'a GatewayId },
    /// From the batch at control to the sync of the bus.
    Append { gateway: &'a GatewayId },
    /// From the bus into history, where questions see it.
    Ingest { gateway: &'a GatewayId },
    /// From the check-in that was given a permit to its answer.
    Permit,
    /// An image's bytes, from the first question for them to the last byte given.
    Image { gateway: &'a GatewayId },
    /// A check-in that says how the install stands, at its gateway.
    CheckIn { gateway: &'a GatewayId, end: InstallEnd },
    /// The same at control.
    Report { gateway: &'a GatewayId, end: InstallEnd },
}

/// As OTLP numbers them (`SpanKind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

impl<'a> Step<'a> {
    /// The span's name: one of a few, so that collectors can count by it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Seal => "seal readings",
            Self::Admit { .. } => "admit readings",
            Self::HandUp { .. } => "hand up readings",
            Self::Append { .. } => "append readings",
            Self::Ingest { .. } => "ingest readings",
            Self::Permit => "issue permit",
            Self::Image { .. } => "serve image",
            Self::CheckIn { .. } => "check in",
            Self::Report { .. } => "take report",
        }
    }

    /// `service.name` of whose work it is.
    pub fn service(&self) -> &'static str {
        match self {
            Self::Seal => "plimsoll-device",
            Self::Admit { .. }
            | Self::HandUp { .. }
            | Self::Image { .. }
            | Self::CheckIn { .. } => "plimsoll-gateway",
            Self::Append { .. } | Self::Permit | Self::Report { .. } => "plimsoll-control",
            Self::Ingest { .. } => "plimsoll-store",
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Seal | Self::HandUp { .. } => Kind::Producer,
            Self::Admit { .. } | Self::Append { .. } | Self::Ingest { .. } => Kind::Consumer,
            Self::Permit | Self::Image { .. } | Self::Report { .. } => Kind::Server,
            Self::CheckIn { .. } => Kind::Client,
        }
    }

    /// `None`: the trace begins with it.
    pub fn parent(&self) -> Option<Step<'a>> {
        match *self {
            Self::Seal | Self::Permit => None,
            Self::Admit { .. } => Some(Self::Seal),
            Self::HandUp { gateway } => Some(Self::Admit { gateway }),
            Self::Append { gateway } => Some(Self::HandUp { gateway }),
            Self::Ingest { gateway } => Some(Self::Append { gateway }),
            Self::Image { .. } | Self::CheckIn { .. } => Some(Self::Permit),
            Self::Report { gateway, end } => Some(Self::CheckIn { gateway, end }),
        }
    }

    pub(crate) fn gateway(&self) -> Option<&'a GatewayId> {
        match *self {
            Self::Seal | Self::Permit => None,
            Self::Admit { gateway }
            | Self::Ingest { gateway }
            | Self::HandUp { gateway }
            | Self::Append { gateway }
            | Self::Image { gateway }
            | Self::CheckIn { gateway, .. }
            | Self::Report { gateway, .. } => Some(gateway),
        }
    }

    pub(crate) fn end(&self) -> Option<&'static str> {
        match self {
            Self::CheckIn { end, .. } | Self::Report { end, .. } => Some(end.as_str()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(last: Step<'_>) -> Vec<&'static str> {
        let mut names: Vec<_> =
            std::iter::successors(Some(last), Step::parent).map(|step| step.name()).collect();
        names.reverse();
        names
    }

    #[test]
    fn every_step_leads_back_to_the_first_of_its_trace() {
        let gateway = &GatewayId::new("gw-1").unwrap();
        assert_eq!(
            way(Step::Ingest { gateway }),
            [
                "seal readings",
                "admit readings",
                "hand up readings",
                "append readings",
                "ingest readings"
            ]
        );
        let end = InstallEnd::Confirmed;
        assert_eq!(way(Step::Report { gateway, end }), ["issue permit", "check in", "take report"]);
        assert_eq!(way(Step::Image { gateway }), ["issue permit", "serve image"]);
    }
}
