//! Desired state, the model of what the maps hold, and the plan from one to the other. Pure.
