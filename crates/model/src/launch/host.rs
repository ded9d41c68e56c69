//! What all VMs of a host share: the secure processor, the open `/dev/sev` files and the ASIDs.

use super::init::supported_vmsa_features;
use super::snp::policy_mask;
use crate::psp::Psp;
use exeunt_abi::kvm::device_attr::sev_attr;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{CertsForm, Errno, Kernel};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A host of SEV guests. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct SevHost {
    psp: Psp,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// Numbers of the process's files that are an open `/dev/sev`, and whether they are open for writing.
    files: BTreeMap<u32, bool>,
    asids: BTreeSet<u32>,
}

impl Default for SevHost {
    fn default() -> Self {
        Self::new(Psp::default())
    }
}

impl SevHost {
    /// The file that is open from the start, for those who do not open their own.
    pub const FILE: u32 = 0x5e7;

    /// A host with this processor.
    #[must_use]
    pub fn new(psp: Psp) -> Self {
        let shared = Shared { files: BTreeMap::from([(Self::FILE, true)]), asids: BTreeSet::new() };
        Self { psp, shared: Arc::new(Mutex::new(shared)) }
    }

    /// The processor.
    #[must_use]
    pub const fn psp(&self) -> &Psp {
        &self.psp
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `open` of `/dev/sev` gave this file. KVM remembers the number of a file and not the file, so a number that is
    /// closed and opened again is as good as the first.
    pub fn open(&self, file: u32, writable: bool) {
        self.lock().files.insert(file, writable);
    }

    /// The file was closed.
    pub fn close(&self, file: u32) {
        self.lock().files.remove(&file);
    }

    /// Whether the file is an open `/dev/sev`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `__sev_issue_cmd`, and `drivers/crypto/ccp/sev-dev.c`,
    /// `sev_issue_cmd_external_user`.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub(crate) fn check_file(&self, file: u32) -> Result<(), Errno> {
        self.is_writable(file).map(|_| ())
    }

    /// Whether the file is open for writing.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is no open `/dev/sev`.
    pub(crate) fn is_writable(&self, file: u32) -> Result<bool, Errno> {
        self.lock().files.get(&file).copied().ok_or(Errno::EBADF)
    }

    /// `KVM_GET_DEVICE_ATTR` of `/dev/kvm` in the group of SEV.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_dev_get_attr`.
    ///
    /// # Errors
    ///
    /// `ENXIO` for an attribute that this kernel does not have.
    pub fn device_attr(&self, kernel: Kernel, attr: u64) -> Result<u64, Errno> {
        let dialect = kernel.dialect;
        match attr {
            sev_attr::SEV_VMSA_FEATURES if dialect.has_snp() => Ok(supported_vmsa_features(dialect)),
            sev_attr::SNP_POLICY_BITS if dialect.has_snp_policy_bits() => Ok(policy_mask(self, dialect)),
            sev_attr::SEV_SNP_REQ_CERTS if dialect.certs_form() == CertsForm::SnpReqCerts => Ok(1),
            _ => Err(Errno::ENXIO),
        }
    }

    /// `sev_asid_new`: the lowest free one of the type's class.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if the class has none at all, `EBUSY` if all are in use.
    pub(crate) fn new_asid(&self, vm_type: VmType) -> Result<Asid, Errno> {
        let config = self.psp.config();
        let first_sev = config.es_asids.saturating_add(1);
        let range = match vm_type {
            VmType::Sev => first_sev..=config.es_asids.saturating_add(config.sev_asids),
            _ => 1..=config.es_asids,
        };
        if range.is_empty() {
            return Err(Errno::ENOTTY);
        }
        let mut shared = self.lock();
        let number = range.into_iter().find(|asid| !shared.asids.contains(asid)).ok_or(Errno::EBUSY)?;
        shared.asids.insert(number);
        Ok(Asid { host: self.clone(), number })
    }
}

/// An ASID in use. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Asid {
    host: SevHost,
    pub(crate) number: u32,
}

impl Drop for Asid {
    fn drop(&mut self) {
        self.host.lock().asids.remove(&self.number);
    }
}
