//! Names of subjects.

/// The subject of a certificate, attribute by attribute. Attributes that have no place here are
/// dropped where one is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// `C`
    pub country: Vec<String>,
    /// `O`
    pub organization: Vec<String>,
    /// `OU`
    pub organizational_unit: Vec<String>,
    /// `L`
    pub locality: Vec<String>,
    /// `ST`
    pub province: Vec<String>,
    /// `STREET`
    pub street_address: Vec<String>,
    /// `postalCode`
    pub postal_code: Vec<String>,
    /// `CN`
    pub common_name: Option<String>,
    /// `serialNumber`, which is no certificate's serial number but part of a name.
    pub serial_number: Option<String>,
}
