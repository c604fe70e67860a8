//! Times of TUF metadata: RFC 3339 in UTC, whole seconds, `2030-01-01T00:00:00Z` and no other form.

use alloc::format;
use alloc::string::String;
use model::Timestamp;

const DAY_S: i64 = 86_400;

/// Reads a time of the years 0000 to 9999.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let form = b"0000-00-00T00:00:00Z";
    let fits = bytes.len() == form.len()
        && bytes.iter().zip(form).all(|(byte, at)| match at {
            b'0' => byte.is_ascii_digit(),
            at => byte == at,
        });
    if !fits {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days(year, month, day);
    // A day that the month does not have comes back as another one; a month that there is not, too.
    if date(days) != (year, month, day) {
        return None;
    }
    Some(Timestamp((days * DAY_S + hour * 3600 + minute * 60 + second) * 1_000_000))
}

/// Writes a time, cut to whole seconds. Outside the years 0000 to 9999 there is no such form.
pub fn format(time: Timestamp) -> Option<String> {
    let seconds = time.as_us().div_euclid(1_000_000);
    let (year, month, day) = date(seconds.div_euclid(DAY_S));
    if !(0..=9999).contains(&year) {
        return None;
    }
    let second = seconds.rem_euclid(DAY_S);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// Days since 1970-01-01 of a date of the Gregorian calendar, counted in eras of 400 years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day; the other way of [`days`].
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2025-06-15T15:06:40Z", 1_750_000_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
        ] {
            assert_eq!(parse(text), Some(Timestamp(seconds * 1_000_000)), "{text}");
            assert_eq!(format(Timestamp(seconds * 1_000_000)).as_deref(), Some(text));
        }
        assert_eq!(
            format(Timestamp(1_750_000_000_999_999)).as_deref(),
            Some("2025-06-15T15:06:40Z")
        );
        assert_eq!(format(Timestamp(253_402_300_800_000_000)), None, "the year 10000");
        for extreme in [i64::MIN, i64::MAX] {
            assert_eq!(format(Timestamp(extreme)), None);
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_comes_back() {
        for day in -200_000..200_000_i64 {
            let (y, m, d) = date(day);
            assert_eq!(days(y, m, d), day, "{y}-{m}-{d}");
        }
    }

    #[test]
    fn a_time_in_another_form_is_none() {
        for bad in [
            "",
            "2025-06-15",
            "2025-06-15T15:06:40",
            "2025-06-15T15:06:40z",
            "2025-06-15 15:06:40Z",
            "2025-06-15T15:06:40.0Z",
            "2025-06-15T15:06:40+00:00",
            "2025-02-29T00:00:00Z",
            "2025-00-10T00:00:00Z",
            "2025-13-10T00:00:00Z",
            "2025-06-31T00:00:00Z",
            "2025-06-00T00:00:00Z",
            "2025-06-15T24:00:00Z",
            "2025-06-15T15:60:00Z",
            "2025-06-15T15:06:60Z",
            "+025-06-15T15:06:40Z",
            "é25-06-15T15:06:40Z",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
