//! Read-only views: progress, tables, Gantt charts, JSON.
