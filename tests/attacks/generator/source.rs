//! Step 0: what stands where a bundle should, and a disk that plays along badly. What is offered is always sound.

use super::sound::{self, SEQ};
use super::{Arrange, CANDIDATE, Folder, Told, folder, lists};

fn case(slug: &str, arrange: Arrange, name: &str, about: &str) -> Folder {
    let next = sound::policy(SEQ + 1, "next");
    folder("source", slug, about).offer(CANDIDATE, name, next).arranged(arrange)
}

/// And is taken afterwards, when nothing is in its way.
fn passing(slug: &str, arrange: Arrange, name: &str, about: &str) -> Folder {
    case(slug, arrange, name, about).again(CANDIDATE, "Activated")
}

pub fn cases() -> Vec<Folder> {
    let list = || lists::parts().signed(&sound::LISTS);
    vec![
        case("fifo", Arrange::Fifo, "SourceNotRegular", "A pipe that nobody writes to."),
        case("symlink", Arrange::Symlink, "SourceNotRegular", "A link: it could lead to any file."),
        case("symlink-to-nothing", Arrange::SymlinkToNothing, "SourceNotRegular", "A link to nothing."),
        case("symlink-loop", Arrange::SymlinkLoop, "SourceNotRegular", "A link to itself."),
        case("folder", Arrange::Folder, "SourceNotRegular", "A folder named like a bundle."),
        case("socket", Arrange::Socket, "SourceNotRegular", "A socket named like a bundle."),
        case("character-device", Arrange::CharacterDevice, "SourceNotRegular", "A device that has no end."),
        case("unreadable", Arrange::Unreadable, "SourceIo", "A medium that cannot be read."),
        folder("source", "hostile-name", "A name that would be a line of the journal.")
            .offer(CANDIDATE, "Rollback", sound::policy(SEQ - 2, "old"))
            .arranged(Arrange::HostileName),
        case("absent", Arrange::Absent, "SourceIo", "Nothing: the file went before it was opened."),
        passing("grows", Arrange::Grows, "SourceChanged", "The file grows while it is copied."),
        passing("shrinks", Arrange::Shrinks, "SourceChanged", "The file shrinks while it is copied."),
        passing("vanishes", Arrange::Vanishes, "SourceChanged", "The file is emptied while it is copied."),
        folder("source", "replaced", "An old policy is replaced once it was opened: what was opened is judged.")
            .offer(CANDIDATE, "Rollback", sound::policy(SEQ - 1, "old"))
            .arranged(Arrange::Replaced),
        passing("no-space", Arrange::NoSpace, "NoSpace", "There is no room for copy and slot."),
        passing("no-space-for-head", Arrange::NoSpaceForHead, "NoSpace", "The disk is full at the slot's head."),
        passing("no-space-for-payload", Arrange::NoSpaceForPayload, "NoSpace", "The disk is full at a slot's blob."),
        passing("broken-slot-disk", Arrange::BrokenSlotDisk, "SourceIo", "A blob cannot be written."),
        passing("broken-state-disk", Arrange::BrokenStateDisk, "StateLost", "What is not committed does not serve."),
        folder("source", "no-space-for-list", "The disk is full when the slot of a list is written.")
            .offer("list.tgb", "NoSpace", list())
            .arranged(Arrange::NoSpaceForHead)
            .again("list.tgb", "Activated"),
        folder("source", "broken-state-disk-and-list", "The state record cannot be written when a list comes.")
            .offer("list.tgb", "StateLost", list())
            .arranged(Arrange::BrokenStateDisk),
        folder("source", "broken-state-disk-and-permit", "The state record cannot be written when a permit comes.")
            .offer("permit.tgb", "StateLost", sound::permit(1, &sound::golden(), &sound::older()))
            .arranged(Arrange::BrokenStateDisk),
        folder("source", "no-space-for-root", "The disk is full when the next root is written: it is not trusted.")
            .offer(CANDIDATE, "NoSpace", {
                let rotated = sound::policy_under(&sound::third(), SEQ + 1, "next", &[14, 15]);
                sound::bringing(&rotated, &[sound::to_third()])
            })
            .arranged(Arrange::NoSpaceForRoot)
            .with(|offer| offer.journal = Some(Told::WithTrouble)),
        case(
            "ten-thousand-files",
            Arrange::TenThousandFiles,
            "TooManyCandidates",
            "None of them is taken, and it is told once.",
        ),
        case(
            "two-importers",
            Arrange::TwoImporters,
            "ImportBusy",
            "The second importer on a state folder takes nothing.",
        )
        .with(|offer| offer.journal = Some(Told::Nothing))
        .again(CANDIDATE, "Activated"),
    ]
}
