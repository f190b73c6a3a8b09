"""Guards of what is encrypted at rest, and of its key (docs/security.md, door 14)."""

from __future__ import annotations

from guards import Cut, guard

_DONE = "test_vault::what_was_done_to_a_file_is_said_before_a_byte_is_used"
_VAULT = "launcher/trust/vault.py"
_DRAFT = "launcher/exported/draft.py"

GUARDS = (
    guard(14, "a piece is bound to its place",
          Cut(_VAULT, 'return number.to_bytes(11, "big") + bytes([last])', "return bytes(11) + bytes([last])"), _DONE),
    guard(14, "and to the end",
          Cut(_VAULT, 'return number.to_bytes(11, "big") + bytes([last])', 'return number.to_bytes(11, "big") + bytes(1)'),
          "test_vault::that_it_is_the_last_piece_is_part_of_it"),
    guard(14, "a header is signed",
          Cut(_VAULT, 'not hmac.compare_digest(tag, _tag(tags, b"header", head[:-TAG])) or ', ""), _DONE),
    guard(14, "a file has its name",
          Cut(_VAULT, 'if not hmac.compare_digest(whose, _tag(tags, b"name", name.encode())):', "if False:"), _DONE,
          "test_encrypted::what_was_changed_is_passed_over_though_the_manifest_vouches_for_it"),
    guard(14, "a file has its length", Cut(_VAULT, "if there != wanted:", "if False:"), _DONE),
    guard(14, "what is plain is not taken for encrypted", Cut(_VAULT, "if not is_sealed(magic):", "if False:"), _DONE),
    guard(14, "another key is no damage",
          Cut(_VAULT, "if not hmac.compare_digest(mark_, _mark(key)):", "if False:"),
          "test_vault::another_key_is_not_damage", "test_encrypted::a_wrong_key_is_no_damage_and_nothing_is_set_aside"),
    guard(14, "nor for a run",
          Cut("launcher/train/checkpoint/checkpoint.py", '    except KeyFault:\n        raise\n', ""),
          "test_encrypted::a_wrong_key_is_no_damage_and_nothing_is_set_aside"),
    guard(14, "a run is refused before it starts",
          Cut("launcher/start/unlocked.py", "if ours not in marks:", "if False:"),
          "test_encrypted::before_a_run_goes_on_its_key_is_looked_at"),
    guard(14, "an export is plain on no disk",
          Cut(_DRAFT, "        if self._key is None:\n            return self.place / name\n", "        return self.place / name\n"),
          "test_draft::what_is_encrypted_is_never_plain_on_a_disk"),
    guard(14, "what another export is at work in stays",
          Cut(_DRAFT, "if found and not living.lives(found[2]) and", "if found and"),
          "test_draft::a_killed_one_s_leftovers_go_and_a_living_one_s_stay"),
    guard(14, "to make a key is no advice to who cannot open",
          Cut("launcher/trust/vault_key.py", 'and keep it" if new else', 'and keep it" if True else'),
          "test_vault::to_make_a_key_is_said_where_something_is_written_alone"),
    guard(14, "a key is mine alone",
          Cut("launcher/trust/vault_key.py", "if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):", "if False:"),
          "test_vault::a_key_lies_in_a_file_that_is_mine_alone"),
    guard(14, "a key is masked however it is written",
          Cut("launcher/trust/secret.py", "        *vault_key.spellings(value),\n", ""),
          "test_vault::a_key_is_masked_however_it_is_written"),
    guard(14, "no config has a key",
          Cut("launcher/clusters/env.py", "if name in _OURS or", "if"), "test_vault::a_key_is_no_value_of_a_config"),
)  # fmt: skip
