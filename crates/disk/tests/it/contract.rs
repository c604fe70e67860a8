//! What every disk does while nothing fails.

use disk::{Disk, RealDisk, SimDisk};
use std::io::ErrorKind;
use std::path::Path;

/// `dir` does not exist; its parent does.
fn contract(disk: &dyn Disk, dir: &Path) {
    // Directories.
    assert!(!disk.exists(dir).unwrap());
    assert_eq!(disk.list(dir).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.sync_dir(dir).unwrap_err().kind(), ErrorKind::NotFound);
    let lost = disk.create(&dir.join("a")).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::NotFound, "parents must exist");
    disk.create_dir_all(&dir.join("deep/down")).unwrap();
    disk.create_dir_all(&dir.join("deep/down")).unwrap();
    assert!(disk.exists(&dir.join("deep")).unwrap());
    assert_eq!(disk.list(dir).unwrap(), ["deep"]);
    assert_eq!(disk.list(&dir.join("deep/down")).unwrap(), [""; 0]);

    // A new file is empty, and a second one of its name is refused.
    let (a, b) = (dir.join("a"), dir.join("b"));
    assert_eq!(disk.open(&a).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.len(&a).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.read(&a, 10).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.remove(&a).unwrap_err().kind(), ErrorKind::NotFound);
    let mut file = disk.create(&a).unwrap();
    assert!(file.is_empty().unwrap());
    assert_eq!(disk.create(&a).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.create(&dir.join("deep")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.list(dir).unwrap(), ["a", "deep"]);

    // What is appended is seen, before it is synced too.
    file.append(b"hello ").unwrap();
    file.append(b"").unwrap();
    file.append(b"world").unwrap();
    assert_eq!((file.len().unwrap(), disk.len(&a).unwrap()), (11, 11));
    assert_eq!(disk.read(&a, 11).unwrap(), b"hello world");
    assert_eq!(disk.read(&a, 10).unwrap_err().kind(), ErrorKind::FileTooLarge);
    file.sync().unwrap();
    disk.sync_dir(dir).unwrap();

    // Reading from the middle stops at the end of the file, or of the room.
    let mut into = [0; 4];
    assert_eq!(disk.read_at(&a, 6, &mut into).unwrap(), 4);
    assert_eq!(&into, b"worl");
    assert_eq!(disk.read_at(&a, 9, &mut into).unwrap(), 2);
    assert_eq!(&into[..2], b"ld");
    assert_eq!(disk.read_at(&a, 11, &mut into).unwrap(), 0);
    assert_eq!(disk.read_at(&a, 1000, &mut into).unwrap(), 0);

    // Another handle appends at the end, wherever the first one stands.
    let mut other = disk.open(&a).unwrap();
    other.append(b"!").unwrap();
    file.append(b"?").unwrap();
    assert_eq!(disk.read(&a, 100).unwrap(), b"hello world!?");

    // Truncating makes shorter only; appending goes on at the new end.
    assert_eq!(file.truncate(14).unwrap_err().kind(), ErrorKind::InvalidInput);
    file.truncate(13).unwrap();
    file.truncate(5).unwrap();
    other.append(b"o").unwrap();
    assert_eq!(disk.read(&a, 100).unwrap(), b"helloo");
    file.truncate(0).unwrap();
    assert!(other.is_empty().unwrap());
    file.append(b"first").unwrap();
    file.sync().unwrap();

    // Written again it is what it was, and a handle goes on at the end.
    for from in [0, 2, 5] {
        disk.write_again(&a, from).unwrap();
    }
    assert_eq!(disk.read(&a, 100).unwrap(), b"first");
    assert_eq!(disk.write_again(&b, 0).unwrap_err().kind(), ErrorKind::NotFound);
    other.append(b"!").unwrap();
    assert_eq!(disk.read(&a, 100).unwrap(), b"first!");

    // A rename replaces, and a handle follows its file, not its name.
    let mut second = disk.create(&b).unwrap();
    second.append(b"second").unwrap();
    disk.rename(&b, &a).unwrap();
    disk.sync_dir(dir).unwrap();
    assert!(!disk.exists(&b).unwrap());
    assert_eq!(disk.read(&a, 100).unwrap(), b"second");
    second.append(b" more").unwrap();
    file.append(b" replaced").unwrap();
    assert_eq!(disk.read(&a, 100).unwrap(), b"second more");
    assert_eq!(disk.rename(&b, &a).unwrap_err().kind(), ErrorKind::NotFound);
    disk.rename(&a, &dir.join("deep/down/c")).unwrap();
    assert_eq!(disk.list(dir).unwrap(), ["deep"]);
    assert_eq!(disk.list(&dir.join("deep/down")).unwrap(), ["c"]);

    // Removed is gone; a handle may still write, to nobody.
    disk.remove(&dir.join("deep/down/c")).unwrap();
    second.append(b"unseen").unwrap();
    second.sync().unwrap();
    assert!(!disk.exists(&dir.join("deep/down/c")).unwrap());

    // Replace: new, then instead of the old, over what an earlier one left.
    let path = dir.join("state");
    disk::replace(disk, &path, b"one").unwrap();
    disk.create(&dir.join("state.new")).unwrap().append(b"left over").unwrap();
    disk::replace(disk, &path, b"two").unwrap();
    assert_eq!(disk.read(&path, 100).unwrap(), b"two");
    assert_eq!(disk.list(dir).unwrap(), ["deep", "state"]);
}

#[test]
fn the_real_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(&RealDisk, &dir.path().join("disk"));
}

#[test]
fn the_double_keeps_the_contract() {
    contract(&SimDisk::new(1), Path::new("/disk"));
}

#[test]
fn files_of_the_real_disk_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (made, file) = (dir.path().join("a/b"), dir.path().join("a/b/secret"));
    RealDisk.create_dir_all(&made).unwrap();
    RealDisk.create(&file).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir.path().join("a")), mode(&made), mode(&file)), (0o700, 0o700, 0o600));
}

#[test]
fn a_file_in_the_place_of_a_directory_is_an_error_on_the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    RealDisk.create(&file).unwrap();
    assert!(RealDisk.create_dir_all(&file).is_err());
    assert!(RealDisk.create_dir_all(&file.join("below")).is_err());
}

#[test]
fn a_directory_is_locked_for_one_until_it_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let lock = disk::lock_dir(dir.path()).unwrap();
    assert_eq!(disk::lock_dir(dir.path()).unwrap_err().kind(), ErrorKind::ResourceBusy);
    drop(lock);
    disk::lock_dir(dir.path()).unwrap();
}
