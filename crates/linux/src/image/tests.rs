use super::*;

#[test]
fn a_name_leads_back_to_its_kind_and_to_its_ending() {
    for kind in ImageKind::ALL {
        assert_eq!(ImageKind::from_name(kind.name()), Some(kind));
    }
    for ending in Ending::ALL {
        assert_eq!(Ending::from_name(ending.name()), Some(ending));
    }
    assert_eq!(ImageKind::from_name("vmlinux"), None);
    assert_eq!(Ending::from_name(""), None);
}

#[test]
fn the_parts_of_an_image_do_not_overlap() {
    for kind in ImageKind::ALL {
        assert!(kind.line().len() < MODE_CODE - 0x50, "{kind}");
        assert!(kind.header(ImageOptions::default()).len() < MODE_CODE, "{kind}");
    }
    for code in [code::rom_to_protected().0, code::pvh_to_protected().0, code::pvh_to_long().0] {
        assert!(code.len() <= CODE - MODE_CODE, "{} bytes", code.len());
    }
    for code in [code::real().0, code::protected().0, code::long().0] {
        assert!(code.len() <= 0x200, "{} bytes", code.len());
    }
}

#[test]
fn the_options_are_where_the_code_reads_them() {
    let options = ImageOptions { exits: 0x1234_5678, ending: Ending::TripleFault };
    for kind in ImageKind::ALL {
        let file = kind.build(options);
        let image = if file.starts_with(b"\x7fELF") { &file[0x1000..] } else { &file[..] };
        assert_eq!(image[0x08..0x14], *b"exeunt\0\0\x78\x56\x34\x12", "{kind}");
        assert_eq!(image[0x14..0x28], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "{kind}");
        assert!(image[0x50..].starts_with(kind.line().as_bytes()), "{kind}");
    }
}

#[test]
fn a_rom_has_64_kib_and_a_jump_at_the_reset_vector() {
    for kind in [ImageKind::Rom16, ImageKind::Rom32] {
        let rom = kind.build(ImageOptions::default());
        assert_eq!(rom.len(), 64 << 10, "{kind}");
        assert_eq!(rom[0xfff0..0xfff3], [0xe9, 0x0d, 0x00], "{kind}");
    }
}

#[test]
fn a_file_can_be_opened_by_its_name_and_not_be_written() {
    let file = ImageFile::make(ImageKind::Elf64, ImageOptions::default()).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(bytes, ImageKind::Elf64.build(ImageOptions::default()));
    assert!(std::fs::write(file.path(), "other").is_err());
    let path = file.path();
    drop(file);
    assert!(!path.exists());
}
