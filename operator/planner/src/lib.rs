//! ballast-planner
