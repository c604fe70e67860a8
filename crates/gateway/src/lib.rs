//! Devices' MQTT 5 side: authenticate, admit, spool, uplink.
