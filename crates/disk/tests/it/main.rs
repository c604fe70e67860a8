//! The contract that the real disk and its double share, and what the double does when the power is cut.

mod contract;
mod replace;
mod sim;
