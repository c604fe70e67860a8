//! A fleet and its weather: demo, recorder, load.
