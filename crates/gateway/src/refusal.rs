//! Every reason for which a gateway says no, with the word that is counted and the code that is sent.
//!
//! One table, so that a reason cannot exist without its counter and its MQTT code; `docs/gateway.md` shows the same
//! table to people, and a test compares the two.

use std::fmt;

/// What a refusal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The connection, without a word: there is no MQTT session to say it in.
    Silently,
    /// The connection, with CONNACK before the session and with DISCONNECT in it (MQTT 5 §4.13).
    Connection,
    /// This message or subscription only: PUBACK or SUBACK carry the code.
    Message,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $code:literal, $ends:ident;)*) => {
        /// Why a connection, a packet or a message was refused: a label of `plimsoll_gateway_refused_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            pub const ALL: &'static [Refusal] = &[$(Self::$variant,)*];

            /// The label of the counter.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// The MQTT 5 reason code; 0 where nothing is said.
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            pub const fn ends(self) -> Ends {
                match self { $(Self::$variant => Ends::$ends,)* }
            }
        }
    };
}

refusals! {
    // The transport.
    /// As many connections as there may be.
    TooManyConnections = "too_many_connections", 0, Silently;
    /// The client showed no certificate.
    TlsNoCertificate = "tls_no_certificate", 0, Silently;
    /// The client's certificate does not lead to the site's CA.
    TlsWrongCa = "tls_wrong_ca", 0, Silently;
    /// The client's certificate is expired, not for clients, or broken.
    TlsBadCertificate = "tls_bad_certificate", 0, Silently;
    /// Not TLS 1.3, or not TLS.
    TlsFailed = "tls_failed", 0, Silently;
    /// No whole TLS handshake within the connect deadline.
    TlsTimeout = "tls_timeout", 0, Silently;
    /// No whole CONNECT within the connect deadline.
    ConnectTimeout = "connect_timeout", 0, Silently;
    /// The client does not read what it is sent.
    SlowReader = "slow_reader", 0, Silently;

    // Framing, before anything is allocated for it.
    /// The first packet is not CONNECT.
    NotConnectFirst = "not_connect_first", 0, Silently;
    /// A second CONNECT in one session.
    SecondConnect = "second_connect", 0x82, Connection;
    /// A packet that only servers send.
    WrongDirection = "wrong_direction", 0x82, Connection;
    /// An acknowledgement of nothing, or AUTH: nothing was sent that it could answer.
    UnexpectedPacket = "unexpected_packet", 0x82, Connection;
    /// Packet type 0.
    ReservedType = "reserved_type", 0x81, Connection;
    /// Flags that the specification reserves.
    ReservedFlags = "reserved_flags", 0x81, Connection;
    /// A variable byte integer of more bytes than it needs, or of more than four.
    LengthForm = "length_form", 0x81, Connection;
    /// Longer than Maximum Packet Size, or than a CONNECT may be.
    PacketTooLarge = "packet_too_large", 0x95, Connection;
    /// Fields that reach beyond the packet, or bytes left over behind them.
    Malformed = "malformed_packet", 0x81, Connection;
    /// A text that is not UTF-8, or holds NUL, control characters or non-characters.
    BadText = "bad_text", 0x81, Connection;
    /// A property that this packet cannot have.
    BadProperty = "bad_property", 0x81, Connection;
    /// A property twice, or with a value outside its domain.
    BadPropertyValue = "bad_property_value", 0x82, Connection;
    /// More properties than a packet may have.
    TooManyProperties = "too_many_properties", 0x97, Connection;

    // CONNECT.
    /// Not the protocol name `MQTT`.
    BadProtocolName = "bad_protocol_name", 0x84, Connection;
    /// Another version than MQTT 5.
    UnsupportedVersion = "unsupported_version", 0x84, Connection;
    /// A will: nothing here acts on one.
    Will = "will", 0x83, Connection;
    /// Enhanced authentication: TLS has proved who it is.
    EnhancedAuth = "enhanced_auth", 0x8c, Connection;
    /// The client accepts packets of fewer bytes than CONNACK needs.
    ClientPacketLimit = "client_packet_limit", 0x95, Connection;
    /// A client id that is not the device's id.
    ClientId = "client_id", 0x87, Connection;

    // Who it is: AUTH-1.
    /// The certificate is not that of a device.
    NotADevice = "not_a_device", 0x87, Connection;
    /// The bundle knows no such device.
    UnknownDevice = "unknown_device", 0x87, Connection;
    /// On the ownership list, not enrolled yet.
    NotEnrolled = "not_enrolled", 0x87, Connection;
    /// Cut off, recoverable.
    Quarantined = "quarantined", 0x87, Connection;
    /// Dead for good.
    Revoked = "revoked", 0x87, Connection;
    /// The TLS key is not, or no longer, one of the device's.
    UnknownTlsKey = "unknown_tls_key", 0x87, Connection;
    /// No policy lets the device connect.
    PolicyConnect = "policy_connect", 0x87, Connection;
    /// A newer bundle no longer lets the device in: its live session is cut.
    StandingChanged = "standing_changed", 0x98, Connection;
    /// A newer session of the same device.
    TakenOver = "taken_over", 0x8e, Connection;
    /// Nothing heard for one and a half times the keep-alive.
    KeepAlive = "keep_alive", 0x8d, Connection;

    // PUBLISH.
    /// QoS 0: a message that cannot be acknowledged can be lost unseen.
    Qos0 = "qos_0", 0x83, Connection;
    /// DUP with QoS 0.
    DupQos0 = "dup_qos_0", 0x81, Connection;
    /// QoS 2: Maximum QoS is 1.
    Qos2 = "qos_2", 0x9b, Connection;
    /// Both QoS bits.
    BadQos = "bad_qos", 0x81, Connection;
    /// RETAIN: Retain Available is 0.
    Retain = "retain", 0x9a, Connection;
    /// Packet identifier 0.
    PacketIdZero = "packet_id_zero", 0x82, Connection;
    /// A packet identifier that waits for its PUBACK.
    PacketIdInUse = "packet_id_in_use", 0x82, Connection;
    /// More in flight than Receive Maximum.
    ReceiveMaximum = "receive_maximum", 0x93, Connection;
    /// A topic that is empty, too long, too deep, or holds wildcards.
    BadTopic = "bad_topic", 0x90, Connection;
    /// A topic alias: Topic Alias Maximum is 0.
    TopicAlias = "topic_alias", 0x94, Connection;
    /// No policy lets the device publish to this topic.
    PolicyPublish = "policy_publish", 0x87, Message;

    // SUBSCRIBE and UNSUBSCRIBE.
    /// No topic filter, or one that is malformed.
    BadFilter = "bad_filter", 0x8f, Connection;
    /// More topic filters than a packet may have.
    TooManyFilters = "too_many_filters", 0x97, Connection;
    /// A subscription identifier: they are not available.
    SubscriptionId = "subscription_id", 0xa1, Connection;
    /// A shared subscription: they are not available.
    SharedSubscription = "shared_subscription", 0x9e, Connection;
    /// A wildcard subscription: they are not available.
    WildcardSubscription = "wildcard_subscription", 0xa2, Connection;
    /// No policy lets the device subscribe to this filter.
    PolicySubscribe = "policy_subscribe", 0x87, Message;

    // HTTP.
    /// As many HTTP connections of this device as there may be.
    TooManyHttp = "too_many_http", 0, Silently;
    /// A request, or the reading of its answer, took longer than it may.
    HttpTimeout = "http_timeout", 0, Silently;
    /// Not HTTP/1.1, or a head above its bounds.
    HttpMalformed = "http_malformed", 0, Silently;

    /// The protocol library refused what our own framing had let through.
    Library = "library", 0x82, Connection;

    // The sealed message.
    /// The message is not CBOR, or not a COSE_Sign1.
    MessageBrokenCbor = "message_broken_cbor", 0x99, Message;
    /// Bytes behind the message.
    MessageTrailingBytes = "message_trailing_bytes", 0x99, Message;
    /// Not in its one deterministic form.
    MessageNotDeterministic = "message_not_deterministic", 0x99, Message;
    /// More than 33,280 bytes.
    MessageOversize = "message_oversize", 0x99, Message;
    /// A kind, version or algorithm that this build does not know, or not a device's (MIX-1).
    MessageUnknownKind = "message_unknown_kind", 0x99, Message;
    /// A name, number or time outside its domain.
    MessageOutOfDomain = "message_out_of_domain", 0x99, Message;
    /// A manifest that speaks of another device.
    MessageOtherDevice = "message_other_device", 0x99, Message;
    /// Sealed with a key that is not, or not yet, this device's.
    UnknownKey = "unknown_key", 0x87, Message;
    /// The signature does not verify.
    BadSignature = "bad_signature", 0x99, Message;
    /// Another message was admitted under this counter: one of the two is forged. An alarm.
    Forged = "forged", 0x83, Message;
    /// The spool holds as many bytes as it may.
    SpoolFull = "spool_full", 0x97, Message;
    /// The disk's reserve begins here.
    DiskFull = "disk_full", 0x97, Message;
    /// More messages wait for the disk than may.
    QueueFull = "queue_full", 0x97, Message;
    /// An earlier message of this session found no room, and none overtakes it.
    BehindRefused = "behind_refused", 0x97, Message;
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<model::cbor::Reason> for Refusal {
    fn from(reason: model::cbor::Reason) -> Self {
        use model::cbor::Reason;
        match reason {
            Reason::BrokenCbor => Self::MessageBrokenCbor,
            Reason::TrailingBytes => Self::MessageTrailingBytes,
            Reason::NotDeterministic => Self::MessageNotDeterministic,
            Reason::Oversize => Self::MessageOversize,
            Reason::UnknownKind => Self::MessageUnknownKind,
            Reason::OutOfDomain => Self::MessageOutOfDomain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_reason_has_a_label_of_its_own_and_a_code_if_something_is_said() {
        let labels: BTreeSet<&str> = Refusal::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            let silent = refusal.ends() == Ends::Silently;
            assert_eq!(refusal.code() == 0, silent, "{refusal}");
            assert!(silent || refusal.code() >= 0x80, "{refusal}");
        }
    }

    /// People read the table in `docs/gateway.md`; it must be this one, row for row.
    #[test]
    fn the_page_for_operators_lists_every_reason_with_its_code() {
        let page = include_str!("../../../docs/gateway.md");
        let rows: Vec<(String, String)> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|row| {
                let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
                let (label, code) = (cells.next()?, cells.next()?);
                let is_code = code == "none" || code.starts_with("0x");
                is_code.then(|| (label.to_owned(), code.to_owned()))
            })
            .collect();
        let table: Vec<(String, String)> = Refusal::ALL
            .iter()
            .map(|r| {
                let code =
                    if r.code() == 0 { "none".to_owned() } else { format!("0x{:02x}", r.code()) };
                (r.as_str().to_owned(), code)
            })
            .collect();
        assert_eq!(rows, table);
    }
}
