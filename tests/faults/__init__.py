"""The promises of section 4 of the contract, proven with faults: docs/guarantees.md says which test shows which."""
