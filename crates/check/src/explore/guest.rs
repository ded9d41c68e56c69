//! The guest of a world: it converts its own pages, keeps words in them, talks to its device, and notes what it is
//! told.

use super::devices::device_word;
use super::ledger::{CERTIFICATES, COMMON_FRAMES, GHCB, Ledger, OWN_PAGES, Page, REQUEST, RESPONSE};
use exeunt_abi::Gpa;
use exeunt_abi::ghcb::guest_message::{msg_type, vmm_error};
use exeunt_abi::ghcb::psc::{self, Entry, operation};
use exeunt_abi::ghcb::{exit_code, msr, page};
use exeunt_model::guest::message::{Channel, Pages, Reply};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_proto::certs::Table;
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::report::Report;
use std::ops::Range;

/// Where the firmware left the keys.
pub(super) const SECRETS: Gpa = Gpa(0x1000);
/// Keys to the firmware that a guest has.
const VMPCKS: u64 = 4;
/// Times that a guest asks again for what failed, before it lets the page be.
const ATTEMPTS: u32 = 64;

/// Runs `acts` acts that the seed of the vCPU decides.
pub(super) async fn run(cpu: Cpu, ledger: Ledger, acts: u64, attests: bool) -> Result<(), GuestFault> {
    let guest = Guest { ghcb: Ghcb::at(ledger.gfn(GHCB).gpa()), cpu, ledger };
    let Some(mut channel) = guest.set_up().await? else { return Ok(()) };
    for _ in 0..acts {
        match guest.below(10) {
            0 | 1 => guest.convert_by_msr().await?,
            2 | 3 => guest.convert_by_page().await?,
            9 => guest.convert_common().await?,
            4 => guest.write_page().await?,
            5 => guest.read_page().await?,
            6 => guest.write_device().await?,
            7 if attests => guest.ask_for_report(&mut channel).await?,
            7 => guest.ask_firmware(&mut channel).await?,
            _ => guest.read_device().await?,
        }
    }
    for page in OWN_PAGES {
        guest.verify(page).await?;
    }
    Ok(())
}

/// The TCB that a report gives.
fn reported_tcb(payload: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(Report::parse_response(payload).ok()?.known()?.wire.reported_tcb))
}

/// The TCB that the host's certificates are made for.
fn certified_tcb(table: &[u8]) -> Option<u64> {
    let certificate = Table::parse(table).ok()?.certificates().next()?;
    Some(u64::from_le_bytes(*certificate.bytes.first_chunk()?))
}

struct Guest {
    cpu: Cpu,
    ghcb: Ghcb,
    ledger: Ledger,
}

impl Guest {
    fn below(&self, bound: u64) -> u64 {
        self.cpu.random().checked_rem(bound).unwrap_or(0)
    }

    fn any_page(&self) -> u64 {
        let Range { start, end } = OWN_PAGES;
        self.below(end.saturating_sub(start)).saturating_add(start)
    }

    fn gpa(&self, page: u64) -> Gpa {
        self.ledger.gfn(page).gpa()
    }

    /// Shares the pages that it needs for that, registers the GHCB, and opens the channel to the firmware. `None` if
    /// the host never let it.
    async fn set_up(&self) -> Result<Option<Channel>, GuestFault> {
        for page in [GHCB, REQUEST, RESPONSE, CERTIFICATES] {
            if !self.ask_by_msr(page, operation::SHARED).await? {
                return Ok(None);
            }
        }
        let response = self.cpu.vmgexit(self.ghcb.gpa().0 | msr::REGISTER_GPA_REQUEST).await?;
        if response != self.ghcb.gpa().0 | msr::REGISTER_GPA_RESPONSE {
            self.ledger.complain(|| format!("the GHCB was not registered: {response:#x}"));
        }
        // Each guest has a key of its own, so that the sequence numbers are its own, too.
        let key = u8::try_from(self.ledger.id & 3).unwrap_or(0);
        Ok(Some(Channel::from_secrets(&self.cpu, SECRETS, key).await?))
    }

    /// Asks until the host says yes.
    async fn ask_by_msr(&self, page: u64, to: u8) -> Result<bool, GuestFault> {
        for _ in 0..ATTEMPTS {
            match self.cpu.vmgexit(MsrRequest::psc(self.ledger.gfn(page), to)).await? {
                msr::PSC_RESPONSE => return Ok(true),
                msr::PSC_RESPONSE_ERROR => {}
                other => self.ledger.complain(|| format!("a page-state change was answered with {other:#x}")),
            }
        }
        Ok(false)
    }

    async fn convert_by_msr(&self) -> Result<(), GuestFault> {
        let page = self.any_page();
        let to = self.leave(page).await?;
        if self.ask_by_msr(page, to).await? {
            self.enter(page, to).await?;
        }
        Ok(())
    }

    /// A request by page for some pages in a row, not all to the same state.
    async fn convert_by_page(&self) -> Result<(), GuestFault> {
        let first = self.any_page();
        let last = first.saturating_add(self.below(6)).min(OWN_PAGES.end.saturating_sub(1));
        let mut entries = Vec::new();
        for page in first..=last {
            let to = self.leave(page).await?;
            entries.push(Entry::new(self.ledger.gfn(page).0, to, false));
        }
        for _ in 0..ATTEMPTS {
            let answer = self.ghcb.page_state_change(&self.cpu, &entries).await?;
            if answer.info_1 == 0 && answer.info_2 == psc::result::SUCCESS {
                let current = self.ghcb.current_entry(&self.cpu).await?;
                if current != entries.len() as u64 {
                    self.ledger.complain(|| format!("all was done, and cur_entry is {current}"));
                }
                for (page, entry) in (first..).zip(&entries) {
                    self.enter(page, entry.operation()).await?;
                }
                return Ok(());
            }
            if [answer.info_1, answer.info_2] != [0, psc::result::GENERIC] {
                self.ledger.complain(|| format!("a page-state change was answered with {answer:x?}"));
            }
        }
        Ok(())
    }

    /// Converts frames that others convert at the same time. Whoever comes last has it his way.
    async fn convert_common(&self) -> Result<(), GuestFault> {
        let frames = COMMON_FRAMES.end.saturating_sub(COMMON_FRAMES.start);
        let first = COMMON_FRAMES.start.saturating_add(self.below(frames));
        let to = if self.below(2) == 0 { operation::PRIVATE } else { operation::SHARED };
        let last = first.saturating_add(self.below(8)).min(COMMON_FRAMES.end.saturating_sub(1));
        let entries: Vec<_> = (first..=last).map(|gfn| Entry::new(gfn, to, false)).collect();
        let answer = self.ghcb.page_state_change(&self.cpu, &entries).await?;
        let (success, generic) = ([0, psc::result::SUCCESS], [0, psc::result::GENERIC]);
        if ![success, generic].contains(&[answer.info_1, answer.info_2]) {
            self.ledger.complain(|| format!("a page-state change was answered with {answer:x?}"));
        }
        Ok(())
    }

    /// Gives a page up and returns the state that it is to have next.
    async fn leave(&self, page: u64) -> Result<u8, GuestFault> {
        let before = self.ledger.page(page);
        self.ledger.set_page(page, Page::Unknown);
        match before {
            Page::Private(_) => {
                self.cpu.pvalidate(self.gpa(page), false).await?;
                Ok(operation::SHARED)
            }
            Page::Shared(_) => Ok(operation::PRIVATE),
            Page::Unknown if self.below(2) == 0 => Ok(operation::PRIVATE),
            Page::Unknown => Ok(operation::SHARED),
        }
    }

    /// Takes a page into use in the state that the host says it has.
    async fn enter(&self, page: u64, to: u8) -> Result<(), GuestFault> {
        if to == operation::PRIVATE {
            self.cpu.pvalidate(self.gpa(page), true).await?;
            self.ledger.set_page(page, Page::Private(None));
        } else {
            self.ledger.set_page(page, Page::Shared(None));
        }
        Ok(())
    }

    async fn write_page(&self) -> Result<(), GuestFault> {
        let page = self.any_page();
        let word = self.cpu.random();
        let access = match self.ledger.page(page) {
            Page::Unknown => return Ok(()),
            Page::Private(_) => Access::Private,
            Page::Shared(_) => Access::Shared,
        };
        self.cpu.write(self.gpa(page), &word.to_le_bytes(), access).await?;
        let known =
            if access == Access::Private { Page::Private(Some(word)) } else { Page::Shared(Some(word)) };
        self.ledger.set_page(page, known);
        Ok(())
    }

    async fn read_page(&self) -> Result<(), GuestFault> {
        self.verify(self.any_page()).await
    }

    /// A word that was written is still there.
    async fn verify(&self, page: u64) -> Result<(), GuestFault> {
        let (access, word) = match self.ledger.page(page) {
            Page::Private(Some(word)) => (Access::Private, word),
            Page::Shared(Some(word)) => (Access::Shared, word),
            _ => return Ok(()),
        };
        let got = self.cpu.read_u64(self.gpa(page), access).await?;
        if got != word {
            self.ledger.complain(|| format!("page {page} holds {got:#x}, {word:#x} was written"));
        }
        Ok(())
    }

    async fn write_device(&self) -> Result<(), GuestFault> {
        let number = self.ledger.send();
        self.cpu.write(self.ghcb.shared_buffer(), &number.to_le_bytes(), Access::Shared).await?;
        self.device_request(exit_code::MMIO_WRITE, self.ledger.device()).await
    }

    async fn read_device(&self) -> Result<(), GuestFault> {
        let at = self.ledger.device().wrapping_add(self.below(16).wrapping_mul(8));
        self.device_request(exit_code::MMIO_READ, at).await?;
        let got = self.cpu.read_u64(self.ghcb.shared_buffer(), Access::Shared).await?;
        if got != device_word(Gpa(at)) {
            self.ledger.complain(|| format!("the device holds {got:#x} at {at:#x}"));
        }
        Ok(())
    }

    /// A request that the firmware answers is answered under the right key with the next sequence number. One that it
    /// refuses has not used the number.
    async fn ask_firmware(&self, channel: &mut Channel) -> Result<(), GuestFault> {
        if self.ledger.id >= VMPCKS {
            return Ok(());
        }
        let pages = Pages { request: self.gpa(REQUEST), response: self.gpa(RESPONSE) };
        let before = channel.seqno();
        let message = (msg_type::TSC_INFO_REQ, [0; 128].as_slice());
        let reply = channel.request(&self.cpu, &self.ghcb, pages, None, message).await?;
        let used = match reply {
            Reply::Payload(..) => 2,
            Reply::Refused(answer) if answer.info_1 == 0 && u32::try_from(answer.info_2).is_ok() => 0,
            other => {
                self.ledger.complain(|| format!("the firmware's answer: {other:x?}"));
                return Ok(());
            }
        };
        let after = channel.seqno();
        if after != before.wrapping_add(used) {
            self.ledger.complain(|| format!("the sequence number went from {before} to {after}"));
        }
        Ok(())
    }

    /// A report comes with the certificates of the TCB that it reports.
    async fn ask_for_report(&self, channel: &mut Channel) -> Result<(), GuestFault> {
        if self.ledger.id >= VMPCKS {
            return Ok(());
        }
        let pages = Pages { request: self.gpa(REQUEST), response: self.gpa(RESPONSE) };
        let room = Some((self.gpa(CERTIFICATES), 1));
        match channel.report(&self.cpu, &self.ghcb, pages, room, [7; 64]).await? {
            Reply::Payload(payload, _) => {
                let table = self.cpu.read(self.gpa(CERTIFICATES), 0x1000, Access::Shared).await?;
                let (of_report, of_table) = (reported_tcb(&payload), certified_tcb(&table));
                if of_report.is_none() || of_report != of_table {
                    self.ledger.complain(|| {
                        format!("a report of TCB {of_report:x?} with certificates of {of_table:x?}")
                    });
                }
                self.ledger.count_report();
            }
            Reply::Refused(answer) if answer.info_2 == vmm_error::BUSY => {}
            Reply::Refused(answer) if answer.info_1 == 0 && u32::try_from(answer.info_2).is_ok() => {}
            other => self.ledger.complain(|| format!("the answer to a request for a report: {other:x?}")),
        }
        Ok(())
    }

    async fn device_request(&self, code: u64, gpa: u64) -> Result<(), GuestFault> {
        let scratch = [(page::SW_SCRATCH, self.ghcb.shared_buffer().0)];
        let answer = self.ghcb.request(&self.cpu, code, [gpa, 8], &scratch).await?;
        if [answer.info_1, answer.info_2] != [0, 0] {
            self.ledger.complain(|| format!("the device access was answered with {answer:x?}"));
        }
        Ok(())
    }
}
