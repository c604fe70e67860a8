//! One product on the device's disk: boot journal, two slots and notes. Does what [`super::install`] decided, and decides
//! nothing.
//!
//! Each call is done when what it says is durable. After an error of the disk nobody knows what is: the agent ends, and its next
//! start reads what is there.

use super::install::{NotFetched, Verdict};
use super::notes::{Notes, NotesError, Ordered};
use crate::flash::{FileFlash, FileSlots};
use crate::supervisor::Launch;
use boot::{Boot, Choice, Content, Ending, Phase, Reason, Slots, Spare};
use disk::{Disk, File, SharedDisk, is_full};
use model::manifest::{self, Component, Installed, Outcome};
use model::{DeviceId, Digest, HardwareId, ProductId, SecurityVersion, Version};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use trust::tuf::{Current, Custom, Target};
use trust::uptane::{self, Assessment, Install};

/// What a download has written is synced so often: no more than this is lost of it by a power cut.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;
/// An image of the factory is read in pieces of this size.
const COPY_BYTES: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ProductError {
    #[error(transparent)]
    Notes(#[from] NotesError),
    #[error("cannot open the boot journal in `{dir}`")]
    Flash { dir: PathBuf, source: io::Error },
    #[error("the boot journal in `{dir}`")]
    Boot { dir: PathBuf, source: boot::Error<io::Error> },
    #[error("cannot read or write the images in `{dir}`")]
    Slots { dir: PathBuf, source: io::Error },
    #[error("cannot read the image `{path}`")]
    Image { path: PathBuf, source: io::Error },
    #[error("`{dir}` has `{product}` already: a product is provisioned once")]
    Provisioned { dir: PathBuf, product: ProductId },
}

impl ProductError {
    /// There is no space: what was attempted may be attempted again later.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Notes(NotesError::Unwritable { source, .. }) | Self::Slots { source, .. } => {
                is_full(source)
            }
            Self::Boot { source: boot::Error::Flash(source), .. } => is_full(source),
            _ => false,
        }
    }

    /// Whether the device can go on without what was attempted: there was no space, or the journal does not make this move from
    /// where it stands. Anything else says that the disk can be relied on no more.
    pub fn may_pass(&self) -> bool {
        use boot::Error::{Refused, Unsure};
        self.is_full() || matches!(self, Self::Boot { source: Refused(_) | Unsure, .. })
    }
}

/// A product as it leaves the factory.
#[derive(Clone, Debug)]
pub struct Factory {
    pub product: ProductId,
    pub hardware: HardwareId,
    pub version: Version,
    pub security_version: SecurityVersion,
    /// The executable.
    pub image: PathBuf,
}

/// Where the products of a device lie: `<data>/update/<product>`.
pub fn dir_of(data: &Path, product: &ProductId) -> PathBuf {
    data.join("update").join(product.as_str())
}

/// What a fetch goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The image lies in the spare slot already, whole.
    Whole,
    /// So many bytes of it do.
    From(u64),
}

pub struct Product {
    disk: SharedDisk,
    dir: PathBuf,
    notes: Notes,
    boot: Boot<FileFlash>,
    slots: FileSlots,
    /// What the last load chose.
    running: Option<Choice>,
    writing: Option<Writing>,
}

/// An image on its way into the spare slot.
struct Writing {
    spare: Spare,
    file: Box<dyn File>,
    written: u64,
    synced: u64,
    length: u64,
    digest: Digest,
}

impl Product {
    /// Puts a product's first image into slot A. Done again after a cut; never over a product that is there.
    pub fn provision(disk: &SharedDisk, data: &Path, first: &Factory) -> Result<(), ProductError> {
        let dir = dir_of(data, &first.product);
        disk.create_dir_all(&dir).map_err(|source| flash_error(&dir, source))?;
        let flash = FileFlash::open(disk.clone(), &dir).map_err(|e| flash_error(&dir, e))?;
        let mut slots = FileSlots::new(disk.clone(), &dir);
        // Looked at before anything is written: the slots of a product at work are not for the factory.
        match Boot::open(FileFlash::open(disk.clone(), &dir).map_err(|e| flash_error(&dir, e))?) {
            Err(boot::Error::NoJournal) => {}
            Ok(_) => {
                let product = first.product.clone();
                return Err(ProductError::Provisioned { dir, product });
            }
            Err(source) => return Err(ProductError::Boot { dir, source }),
        }
        let slot = boot::Slot::A;
        copy(&**disk, &first.image, &slots.path(slot))
            .map_err(|source| ProductError::Image { path: first.image.clone(), source })?;
        let in_slot = |source| ProductError::Slots { dir: dir.clone(), source };
        let len = disk.len(&slots.path(slot)).map_err(in_slot)?;
        let digest = slots.digest(slot, len).map_err(in_slot)?;
        let digest = digest.expect("a file is as long as it is");
        // The notes first: whatever the journal names, they know.
        let (product, hardware) = (first.product.clone(), first.hardware.clone());
        Notes::new(product, hardware, Digest(digest.0), first.version).write(&**disk, &dir)?;
        let security = boot::SecurityVersion(first.security_version.0);
        let image = boot::Image { digest, len, security, order: boot::Order(0) };
        // Nothing below what it left the factory with starts.
        let made = Boot::provision(flash, &mut slots, slot, image, security);
        made.map(drop).map_err(|error| ProductError::Boot { dir, source: journal(error) })
    }

    pub fn open(disk: &SharedDisk, data: &Path, product: &ProductId) -> Result<Self, ProductError> {
        let dir = dir_of(data, product);
        let notes = Notes::read(&**disk, &dir)?;
        let flash = FileFlash::open(disk.clone(), &dir).map_err(|e| flash_error(&dir, e))?;
        let boot =
            Boot::open(flash).map_err(|source| ProductError::Boot { dir: dir.clone(), source })?;
        let slots = FileSlots::new(disk.clone(), &dir);
        let (disk, running, writing) = (disk.clone(), None, None);
        Ok(Self { disk, dir, notes, boot, slots, running, writing })
    }

    /// After an error that may pass: what is durable is read anew.
    pub fn reopen(&mut self) -> Result<(), ProductError> {
        self.writing = None;
        let flash = FileFlash::open(self.disk.clone(), &self.dir);
        let flash = flash.map_err(|source| flash_error(&self.dir, source))?;
        self.boot = Boot::open(flash).map_err(|source| self.boot_error(source))?;
        self.notes = Notes::read(&*self.disk, &self.dir)?;
        Ok(())
    }

    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    pub fn state(&self) -> &boot::State {
        self.boot.state()
    }

    /// The loader: what is to run now. What the choice changes is durable.
    pub fn load(&mut self) -> Result<(Launch, Reason), ProductError> {
        // Whether the trial hangs is for the supervisor to see; when this process dies, the next load takes it back.
        let mut no_watchdog = || {};
        let loaded = self.boot.load(&mut self.slots, &mut no_watchdog);
        let choice = loaded.map_err(|source| self.boot_error(source))?;
        Ok(self.chosen(choice))
    }

    fn chosen(&mut self, choice: Choice) -> (Launch, Reason) {
        if choice.reason.is_trial() {
            // What starts is not written to.
            self.writing = None;
        }
        self.running = Some(choice);
        let digest = Digest(choice.image.digest.0);
        let launch = Launch {
            slot: choice.slot,
            program: self.slots.path(choice.slot),
            digest: choice.image.digest,
            version: self.notes.version(&digest).unwrap_or(UNKNOWN),
            on_trial: choice.reason.is_trial(),
        };
        (launch, choice.reason)
    }

    /// Another process was the loader, and has started this slot: the agent as a product of its own. What it did stands in the
    /// journal.
    pub fn launched(&mut self, slot: boot::Slot) -> Result<(Launch, Reason), ProductError> {
        let state = self.boot.state();
        let report = self.boot.report(slot);
        let no_image = boot::Refused::NotRunning { expected: state.running(), found: slot };
        let image = report.image.ok_or_else(|| self.boot_error(boot::Error::Refused(no_image)))?;
        let reason = match state.content() {
            Content::Trying { .. } if slot == state.spare() => Reason::Trial,
            Content::Failed(_) => Reason::Reverted,
            _ => Reason::Confirmed,
        };
        Ok(self.chosen(Choice { slot, image, reason, recorded: true }))
    }

    /// Whether something was chosen to run.
    pub fn is_loaded(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the journal says what runs. False only when it could not be written.
    pub fn is_recorded(&self) -> bool {
        self.running.is_none_or(|choice| choice.recorded)
    }

    /// The journal says what runs again, once there is room: an image that was taken back while nothing could be written. The
    /// loader's choice is made anew, and counts only if it is what runs already.
    pub fn record(&mut self) -> Result<(), ProductError> {
        let Some(choice) = self.running.filter(|choice| !choice.recorded) else { return Ok(()) };
        let state = self.boot.state();
        if state.phase() != Phase::Trying || choice.slot != state.good() {
            // What is armed still starts at the next load, and until then the journal names what runs.
            return Ok(());
        }
        let Ok(anew) = self.boot.load(&mut self.slots, &mut || {}) else {
            // Neither is whole any more. What runs goes on; the next load says so.
            return Ok(());
        };
        if !anew.recorded {
            // Still no room.
            return self.reopen();
        }
        if anew.slot == choice.slot {
            self.running = Some(anew);
        }
        Ok(())
    }

    /// INV-BOOT-1, looked at a second time: the journal names what runs, and INV-IMG-1: what runs was ordered or provisioned.
    pub fn doubts(&self) -> Option<&'static str> {
        let choice = self.running?;
        let report = self.boot.report(choice.slot);
        if choice.recorded && !report.agrees {
            return Some("INV-BOOT-1");
        }
        let known = self.notes.version(&Digest(choice.image.digest.0)).is_some();
        (!known).then_some("INV-IMG-1")
    }

    /// What the manifest says of it. None before the first load.
    pub fn component(&self) -> Option<Component> {
        let choice = self.running?;
        let state = self.boot.state();
        let mut slots = [None, None];
        slots[state.good() as usize] = Some(self.installed(state.image()));
        slots[state.spare() as usize] = state.content().image().map(|i| self.installed(i));
        // Only a journal that could not be written names no image for what runs.
        let running = &mut slots[choice.slot as usize];
        if running.is_none() {
            *running = Some(self.installed(&choice.image));
        }
        let tried = state.phase() == Phase::Trying && choice.slot == state.spare();
        let not_whole = state.last().is_some_and(|last| last.how == Ending::NotWhole);
        let boot = match choice.reason {
            _ if tried => manifest::Boot::Trial,
            Reason::Reverted => manifest::Boot::Reverted,
            Reason::FellBack => manifest::Boot::Fallback,
            Reason::NotTried if not_whole => manifest::Boot::Fallback,
            _ => manifest::Boot::Confirmed,
        };
        Some(Component {
            product: self.notes.product.clone(),
            hardware: self.notes.hardware.clone(),
            floor: SecurityVersion(state.floor().0),
            running: match choice.slot {
                boot::Slot::A => manifest::Slot::A,
                boot::Slot::B => manifest::Slot::B,
            },
            boot,
            slots,
        })
    }

    fn installed(&self, image: &boot::Image) -> Installed {
        let digest = Digest(image.digest.0);
        Installed {
            version: self.notes.version(&digest).unwrap_or(UNKNOWN),
            digest,
            length: image.len,
            security_version: SecurityVersion(image.security.0),
        }
    }

    pub fn outcome(&self) -> Option<Outcome> {
        self.notes.outcome(self.boot.state())
    }

    /// Begins to bring an image into the spare slot, or goes on with it. What lies there already is not fetched again.
    pub fn begin(&mut self, install: &Install, order: &Ordered) -> Result<Begun, ProductError> {
        self.writing = None;
        let (length, digest) = (install.length(), boot::Digest(install.digest().0));
        let content = self.boot.state().content().image().copied();
        let security = boot::SecurityVersion(install.order().release.security_version.0);
        // The same bytes under another security version are armed as what they are ordered as.
        let there = content.filter(|image| {
            image.digest == digest && image.len == length && image.security == security
        });
        if there.is_some() && self.lies_in_spare(length, digest)? {
            self.note(order)?;
            return Ok(Begun::Whole);
        }
        let spare = self.boot.begin().map_err(|source| self.boot_error(source))?;
        let mut written = self.slots.written(&spare).map_err(|e| self.slots_error(e))?;
        let noted = self.notes.install().filter(|noted| !noted.failed);
        let of_this = noted.is_some_and(|noted| noted.order.digest == order.digest);
        if !of_this || written > length {
            self.slots.empty(&spare).map_err(|e| self.slots_error(e))?;
            written = 0;
        }
        self.note(order)?;
        if written == length && !self.lies_in_spare(length, digest)? {
            self.slots.empty(&spare).map_err(|e| self.slots_error(e))?;
            written = 0;
        }
        let file = self.slots.append(&spare).map_err(|e| self.slots_error(e))?;
        let digest = install.digest();
        let whole = written == length;
        self.writing = Some(Writing { spare, file, written, synced: written, length, digest });
        Ok(if whole { Begun::Whole } else { Begun::From(written) })
    }

    fn lies_in_spare(&mut self, len: u64, digest: boot::Digest) -> Result<bool, ProductError> {
        let spare = self.boot.state().spare();
        match self.slots.digest(spare, len) {
            Ok(found) => Ok(found == Some(digest)),
            Err(source) => Err(self.slots_error(source)),
        }
    }

    fn note(&mut self, order: &Ordered) -> Result<(), ProductError> {
        let state = self.boot.state();
        let slots = [Some(state.image()), state.content().image()];
        let mut notes = self.notes.clone();
        notes.begin(order.clone(), slots.map(|image| image.map(|image| Digest(image.digest.0))));
        self.keep(notes)
    }

    fn keep(&mut self, notes: Notes) -> Result<(), ProductError> {
        if notes != self.notes {
            notes.write(&*self.disk, &self.dir)?;
            self.notes = notes;
        }
        Ok(())
    }

    /// The next bytes of the image. `Err(NoRoom)`: the disk is full; `Err(Wrong)`: more bytes came than it has.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Result<(), NotFetched>, ProductError> {
        let Some(writing) = &mut self.writing else { return Ok(Err(NotFetched::Broken)) };
        let ends = writing.written.saturating_add(bytes.len() as u64);
        if ends > writing.length {
            return self.empty().map(|()| Err(NotFetched::Wrong));
        }
        let result = writing.file.append(bytes).and_then(|()| {
            writing.written = ends;
            if ends - writing.synced >= SYNC_BYTES {
                writing.file.sync()?;
                writing.synced = ends;
            }
            Ok(())
        });
        match result {
            Ok(()) => Ok(Ok(())),
            Err(e) if is_full(&e) => self.empty().map(|()| Err(NotFetched::NoRoom)),
            Err(e) => Err(self.slots_error(e)),
        }
    }

    /// How much of the image is there. None: nothing is being written.
    pub fn written(&self) -> Option<(u64, u64)> {
        self.writing.as_ref().map(|writing| (writing.written, writing.length))
    }

    /// Nothing more comes: is it the image?
    pub fn finish(&mut self) -> Result<Result<(), NotFetched>, ProductError> {
        let Some(writing) = &self.writing else { return Ok(Err(NotFetched::Broken)) };
        let (written, length) = (writing.written, writing.length);
        let digest = boot::Digest(writing.digest.0);
        if written < length {
            return Ok(Err(NotFetched::Broken));
        }
        if self.lies_in_spare(length, digest)? {
            return Ok(Ok(()));
        }
        self.empty().map(|()| Err(NotFetched::Wrong))
    }

    fn empty(&mut self) -> Result<(), ProductError> {
        match self.writing.take() {
            Some(writing) => self.slots.empty(&writing.spare).map_err(|e| self.slots_error(e)),
            None => Ok(()),
        }
    }

    /// The fetch begins anew. Nothing of what came stays.
    pub fn drop_written(&mut self) -> Result<(), ProductError> {
        self.empty()
    }

    /// The fetch is void. What came stays.
    pub fn stop(&mut self) {
        self.writing = None;
    }

    /// The next load tries it, once. The caller has seen just now that it may (INV-IMG-1, INV-ROLL-1). False: it is not whole
    /// any more.
    pub fn arm(&mut self, install: &Install) -> Result<bool, ProductError> {
        let mut notes = self.notes.clone();
        let noted = notes.install().filter(|noted| noted.order.digest == install.digest());
        if noted.is_none() {
            return Ok(false);
        }
        let Some(number) = notes.arm() else { return Ok(false) };
        self.keep(notes)?;
        let digest = boot::Digest(install.digest().0);
        let security = boot::SecurityVersion(install.order().release.security_version.0);
        let order = boot::Order(number);
        let armed = match self.writing.take() {
            Some(Writing { spare, file, .. }) => {
                drop(file);
                let image = boot::Image { digest, len: install.length(), security, order };
                self.boot.arm(&mut self.slots, spare, image)
            }
            None => {
                let there = self.boot.state().content().image();
                if there.is_none_or(|image| (image.digest, image.security) != (digest, security)) {
                    return Ok(false);
                }
                self.boot.arm_again(&mut self.slots, order)
            }
        };
        match armed {
            Ok(()) => Ok(true),
            Err(boot::Error::Refused(boot::Refused::NotWhole { .. })) => Ok(false),
            Err(boot::Error::Slots(source)) => Err(self.slots_error(source)),
            Err(other) => Err(self.boot_error(journal(other))),
        }
    }

    /// What is armed is not to start after all.
    pub fn withdraw(&mut self) -> Result<(), ProductError> {
        self.boot.withdraw().map_err(|source| self.boot_error(source))
    }

    pub fn confirm(&mut self, slot: boot::Slot) -> Result<(), ProductError> {
        self.boot.confirm(slot).map_err(|source| self.boot_error(source))?;
        if let Some(running) = &mut self.running {
            running.reason = Reason::Confirmed;
        }
        Ok(())
    }

    /// The reason first: it is told only once the journal says that it was given up.
    pub fn give_up(&mut self, slot: boot::Slot, code: u16, why: &str) -> Result<(), ProductError> {
        let mut notes = self.notes.clone();
        notes.explain(why);
        self.keep(notes)?;
        self.boot.give_up(slot, code).map_err(|source| self.boot_error(source))
    }

    pub fn fail(&mut self, order: &Ordered, why: &str) -> Result<(), ProductError> {
        self.writing = None;
        let mut notes = self.notes.clone();
        notes.fail(order.clone(), why);
        self.keep(notes)
    }

    pub fn raise(&mut self, floor: SecurityVersion) -> Result<(), ProductError> {
        let raised = self.boot.raise(boot::SecurityVersion(floor.0));
        raised.map_err(|source| self.boot_error(source))
    }

    fn boot_error(&self, source: boot::Error<io::Error>) -> ProductError {
        ProductError::Boot { dir: self.dir.clone(), source }
    }

    fn slots_error(&self, source: io::Error) -> ProductError {
        ProductError::Slots { dir: self.dir.clone(), source }
    }
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Product({}, {:?})", self.notes.product, self.boot.state())
    }
}

/// What both repositories say of a product, and of which order.
pub fn verdict(
    director: &Current<'_>,
    images: &Current<'_>,
    device: &DeviceId,
    me: &Component,
) -> Verdict {
    let generation = director.versions().targets;
    match uptane::assess(director, images, device, me) {
        Assessment::Install(install) => {
            let order = Ordered::of(&install, generation);
            Verdict::Install(install, order)
        }
        Assessment::Raise(floor) => Verdict::Raise(floor),
        Assessment::Nothing => Verdict::Nothing,
        Assessment::Refused(why) => {
            let order =
                order_for(director, &me.product).and_then(|target| read_order(target, generation));
            Verdict::Refused { order, why }
        }
    }
}

/// The Director's order for a product, be it sound or not.
pub fn order_for<'a>(director: &Current<'a>, product: &ProductId) -> Option<&'a Target> {
    director.targets().iter().find(|target| match &target.custom {
        Custom::Order(order) => order.release.product == *product,
        Custom::None | Custom::Unreadable(_) => false,
    })
}

/// What a refused order was: to tell of it. Nothing is installed by it.
fn read_order(target: &Target, generation: u64) -> Option<Ordered> {
    let Custom::Order(order) = &target.custom else { return None };
    Some(Ordered {
        rollout: order.rollout.clone(),
        digest: target.hashes.sha256?,
        version: order.release.version,
        length: target.length,
        security_version: order.release.security_version,
        generation,
    })
}

/// Of an image of which the notes say nothing: only when they were lost and made by hand.
const UNKNOWN: Version = Version::new(0, 0, 0);

/// The error of a move that touches the slots, once it is known that the slots are not to blame.
fn journal(error: boot::Error<io::Error, io::Error>) -> boot::Error<io::Error> {
    use boot::Error;
    match error {
        Error::Flash(e) | Error::Slots(e) => Error::Flash(e),
        Error::NotWritten => Error::NotWritten,
        Error::Unsure => Error::Unsure,
        Error::Geometry(geometry) => Error::Geometry(geometry),
        Error::NoJournal => Error::NoJournal,
        Error::Provisioned => Error::Provisioned,
        Error::Foreign { version } => Error::Foreign { version },
        Error::Refused(refused) => Error::Refused(refused),
        Error::Stuck(stuck) => Error::Stuck(stuck),
    }
}

fn flash_error(dir: &Path, source: io::Error) -> ProductError {
    ProductError::Flash { dir: dir.to_owned(), source }
}

/// Copies a file, durably, piece by piece: an image may be larger than the memory.
fn copy(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk::replace(disk, to, &[])?;
    let mut file = disk.open(to)?;
    let (mut at, mut buffer) = (0, vec![0; COPY_BYTES]);
    loop {
        let n = disk.read_at(from, at, &mut buffer)?;
        if n == 0 {
            return file.sync();
        }
        file.append(&buffer[..n])?;
        at += n as u64;
    }
}

#[cfg(test)]
mod tests;
