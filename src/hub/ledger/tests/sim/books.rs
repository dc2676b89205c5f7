//! The end of a life: everything comes through, and the books must balance.

use super::*;

impl World {
    /// All comes in: what still runs stops in order, every file goes to the hub and every receipt back.
    pub(super) fn drain(&mut self) {
        for at in 0..self.spools.len() {
            self.spools[at].stop();
            let mut idle = 0;
            for round in 0.. {
                assert!(round < 2_000, "it never ends");
                let rows = self.spools[at].seal();
                let Some(file) = self.spools[at].oldest(None) else {
                    let (files, left_over) = self.spools[at].waiting();
                    if rows == Some(0) && files == 0 && !left_over {
                        break;
                    }
                    idle += 1;
                    assert!(idle < 20, "{rows:?} rows, {files} files that nobody sees, {left_over}");
                    continue;
                };
                self.sent[at] = Some((file.at, file.digest));
                let sent = self.as_sent(file);
                let receipt = self.take(vec![sent]).pop().expect("the hub takes it");
                self.receive(at, &receipt);
            }
        }
        // What comes late changes nothing.
        while let Some(packet) = self.random.take(&mut self.air) {
            self.arrive(packet);
        }
        while !self.sticks.is_empty() {
            self.import();
        }
        while let Some(packet) = self.random.take(&mut self.by_hand) {
            self.arrive(packet);
        }
        for spool in &mut self.spools {
            assert_eq!(spool.waiting().0, 0, "the device is empty");
        }
    }

    pub(super) fn balance(&mut self) {
        let db = Connection::open(self.site.path()).expect("it opens");
        let number = |sql: &str| -> u64 {
            let number: i64 = db.query_row(sql, [], |row| row.get(0)).expect("it answers");
            u64::try_from(number).expect("nothing is negative")
        };
        let lost: u64 = self.spools.iter().map(|spool| spool.lost).sum();
        let cuts: u64 = self.spools.iter().map(|spool| u64::from(spool.cuts)).sum();
        let uncounted: u64 = self.spools.iter().map(|spool| spool.uncounted).sum();
        let generated = self.requests + uncounted;
        let (told, sums) =
            (number("SELECT count(*) FROM records"), number("SELECT coalesce(sum(count), 0) FROM roll_ups"));
        let exact = number("SELECT coalesce(sum(count), 0) FROM gaps");
        let unknown = number("SELECT count(*) FROM gaps WHERE count IS NULL");
        let counted = if self.flaw == Flaw::AddsUp { self.added_up } else { told + sums + exact };
        self.say(format_args!("{told} told, {sums} summed, {exact} in gaps, {unknown} unknown gaps, {lost} lost"));
        assert_eq!(
            counted + lost,
            generated,
            "{told} told, {sums} summed, {exact} in gaps, {lost} lost by {cuts} cuts"
        );
        assert!(cuts > 0 || unknown == 0, "{unknown} gaps of which nobody knows, and the power never went");
        assert!(lost == 0 || unknown > 0, "{lost} requests are gone, and nothing says so");
        assert_eq!(number("SELECT count(DISTINCT request_id) FROM records"), told, "a request is told twice");
        assert_eq!(number("SELECT coalesce(sum(requests), 0) FROM daily"), told + sums, "by days it is another sum");
        assert_eq!(number("SELECT count(*) FROM forks"), 0);
        assert_eq!(number("SELECT count(*) FROM gap_rows WHERE count < 0 OR from_ms > to_ms"), 0, "a gap turned round");
        assert_eq!(number("SELECT count(*) FROM roll_up_rows WHERE count < 0 OR from_ms > to_ms"), 0);
        // Each number up to the highest is there, or under a tombstone.
        assert_eq!(number("SELECT count(*) FROM chains WHERE contiguous <> highest"), 0, "a hole that nobody made");
        for digest in &self.receipts {
            let held =
                db.query_row("SELECT count(*) FROM files WHERE digest = ?1", [digest.0], |row| row.get::<_, i64>(0));
            assert_eq!(held.ok(), Some(1), "a receipt for what the hub does not have");
        }
        self.seen.cuts = cuts;
        self.seen.lost = lost;
        self.seen.requests = generated;
    }
}
