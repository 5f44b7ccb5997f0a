"""The audit log, pure: RFC 6962 trees and proofs, C2SP tiles, signed notes, checkpoints, entries and their chains."""
