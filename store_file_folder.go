package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// A folder is what a [FileStore] uses of the file system. Tests use another one.
type folder interface {
	OpenFile(name string, flag int, perm fs.FileMode) (file, error)
	Holds(name string, f file) (bool, error) // reports whether f has this name
	Rename(from, to string) error
	Remove(name string) error
	Sync() error // makes the names of files durable
	Close() error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Chmod(fs.FileMode) error
	Truncate(size int64) error
	Sync() error
}

var errLocked = errors.New("another process is using it")

// osFolder is a folder on the disk. It follows no link that leads out of the folder.
type osFolder struct {
	*os.Root
	self *os.File
}

func openFolder(path string) (osFolder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return osFolder{}, err
	}
	self, err := root.Open(".")
	if err != nil {
		return osFolder{}, errors.Join(err, root.Close())
	}
	return osFolder{root, self}, nil
}

// OpenFile opens a file and locks it against other processes. The store belongs to
// whoever has locked the file with its name: a compaction locks the new file before it
// gets the name.
func (d osFolder) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := d.Root.OpenFile(name, flag, perm)
	if wrong, ok := errors.AsType[*fs.PathError](err); ok {
		wrong.Op, wrong.Path = "open", filepath.Join(d.Name(), name) // the whole path
	}
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d osFolder) Holds(name string, f file) (bool, error) {
	named, err := os.Lstat(filepath.Join(d.Name(), name)) // by its path: the folder may have been replaced too
	if err != nil {
		return false, err
	}
	info, err := f.Stat()
	return os.SameFile(named, info), err
}

func (d osFolder) Sync() error {
	if runtime.GOOS == "windows" {
		return nil // where folders cannot be synced; NTFS has a journal
	}
	return d.self.Sync()
}

func (d osFolder) Close() error { return errors.Join(d.self.Close(), d.Root.Close()) }
