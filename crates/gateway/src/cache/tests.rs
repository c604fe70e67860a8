use super::*;
use disk::{SimDisk, SyncMode, cut_everywhere};

const DATA: &str = "/gw";

fn image() -> Vec<u8> {
    (0..4000u32).flat_map(|n| n.to_le_bytes()).collect()
}

fn digest() -> Digest {
    trust::digest(&image())
}

fn cache(disk: &SimDisk) -> Arc<Cache> {
    Cache::open(disk.shared(), Path::new(DATA), 1 << 20, Metrics::new()).0
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// A fetch without a network: goes on where the last one left off.
fn fetch(cache: &Cache) -> io::Result<bool> {
    let (image, digest) = (image(), digest());
    let mut grown = Grown::open(&*cache.disk, &cache.dir, &digest)?;
    if grown.written > image.len() as u64 {
        grown.start_over()?;
    }
    while grown.written < image.len() as u64 {
        let at = grown.written as usize;
        let piece = image[at..image.len().min(at + 5000)].to_vec();
        run(grown.write(piece))?;
    }
    grown.finish(cache, &digest)
}

/// What the next process gives out, with control away.
fn given(cache: &Cache) -> Option<Vec<u8>> {
    let digest = digest();
    let look = cache.state().shelf.look(&digest);
    if look != Look::Unverified {
        return None;
    }
    match hash(&*cache.disk, &cache.whole(&digest)) {
        Ok((found, _)) if found == digest => {
            Some(cache.disk.read(&cache.whole(&digest), u64::MAX).unwrap())
        }
        _ => None,
    }
}

/// What was torn is never given out, what was whole is found again, and a fetch comes to its end whatever it finds.
#[test]
fn a_cut_at_any_write_leaves_an_image_whole_or_to_be_fetched_again() {
    let workload = |disk: &SimDisk| {
        let made = disk.create_dir_all(Path::new(DATA));
        made.is_ok_and(|()| fetch(&cache(disk)).is_ok_and(|whole| whole))
    };
    let check = |disk: &SimDisk, was_whole: bool| {
        disk.create_dir_all(Path::new(DATA)).map_err(|e| e.to_string())?;
        let cache = cache(disk);
        match given(&cache) {
            Some(bytes) if bytes == image() => return Ok(()),
            Some(_) => return Err("other bytes are given out".into()),
            None if was_whole => return Err("what was whole is gone".into()),
            None => {}
        }
        // As `obtain` does: what is not what it should be goes, and what goes on from there ends well.
        let begun = cache.state().shelf.look(&digest());
        if begun == Look::Unverified {
            cache.remove(&[digest()]);
        }
        let mut whole = fetch(&cache).map_err(|e| e.to_string())?;
        if !whole {
            cache.remove(&[digest()]);
            whole = fetch(&cache).map_err(|e| e.to_string())?;
        }
        let again = self::cache(disk);
        if whole && given(&again) == Some(image()) { Ok(()) } else { Err("never whole".into()) }
    };
    cut_everywhere(0..6, workload, check).holds("image");
    // A disk that lies loses what was whole: this test would see it.
    let lied = disk::Cuts::over(0..6).on(SyncMode::Lies).run(workload, check);
    assert!(!lied.broken.is_empty());
}

/// Also when all of it has come, and nobody has looked at it yet: whoever has all of an image has a right one.
#[test]
fn the_last_byte_waits_for_the_digest() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DATA)).unwrap();
    let (cache, image, digest) = (cache(&disk), image(), digest());
    let len = image.len() as u64;
    disk.create_dir_all(&cache.dir).unwrap();
    disk.create(&cache.part(&digest)).unwrap().append(&image).unwrap();
    let (progress, progressed) = watch::channel(Progress::Growing { written: len, len });
    let mut reader = Reader { cache, digest, len, progress: Some(progressed) };
    run(async {
        let first = reader.read(0, usize::MAX).await.unwrap();
        assert_eq!(first, image[..image.len() - 1]);
        {
            let mut last = std::pin::pin!(reader.read(len - 1, usize::MAX));
            tokio::select! {
                biased;
                early = &mut last => panic!("before its digest: {early:?}"),
                () = std::future::ready(()) => {}
            }
            progress.send_replace(Progress::Whole { len });
            assert_eq!(last.await.unwrap(), image[image.len() - 1..]);
        }
        progress.send_replace(Progress::Failed(Failure::Mismatch));
        assert_eq!(reader.read(len - 1, usize::MAX).await, Err(Failure::Mismatch));
    });
}

#[test]
fn the_whole_of_a_part_is_read_only_if_it_is_the_rest_that_was_asked_for() {
    for (range, expected) in [
        ("bytes 4-9/10", Some(10)),
        ("bytes 4-9/11", None),
        ("bytes 3-9/10", None),
        ("bytes 4-9/*", None),
        ("bytes */10", None),
        ("4-9/10", None),
        ("bytes 4-18446744073709551615/10", None),
    ] {
        assert_eq!(whole_of(range, 4), expected, "{range}");
    }
}
